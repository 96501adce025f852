"""What a process uses: its own memory, not that of the process that started it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from fusion import process
from fusion.process import memory_at_peak, memory_now

ROOT = Path(__file__).parents[1]
LARGE = 2**28  # bytes
ROUGHLY = 2**24  # bytes; Linux counts in each thread, and adds that up now and then
SHOW = "from fusion.process import memory_at_peak; print(memory_at_peak())"


@pytest.mark.skipif(sys.platform != "linux", reason="others have no such file")
def test_memory_is_that_of_this_process():
    held = np.ones(LARGE // 8)
    now, peak = memory_now(), memory_at_peak()
    assert abs(now - psutil.Process().memory_info().rss) < LARGE // 4
    assert held.nbytes < now <= peak + ROUGHLY
    del held
    assert memory_at_peak() > peak - ROUGHLY and memory_now() < peak - LARGE // 2
    started = subprocess.run(
        [sys.executable, "-c", SHOW], cwd=ROOT, check=True, capture_output=True
    )
    assert 0 < int(started.stdout) < LARGE // 2  # a process begins with its parent's ru_maxrss


def test_without_the_file_of_linux_the_peak_is_asked_from_the_system(monkeypatch, tmp_path):
    monkeypatch.setattr(process, "STATUS", tmp_path / "none")
    assert memory_now() == 0
    assert memory_at_peak() >= 2**20 or sys.platform == "win32"
