"""No file, however damaged, ends the program that reads it, hangs it or fills the memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

CASES = sorted((Path(__file__).parent / "cases").iterdir())
ROOT = Path(__file__).parents[3]


def fuzz(seed, count, limit):
    command = [sys.executable, "-m", "tests.data.media.fuzz", str(seed), str(count), *CASES]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=limit, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_damaged_files_neither_crash_nor_hang_nor_fill_the_memory():
    found = fuzz(seed=0, count=60, limit=600)
    assert found["files"] == 60 and 20 < found["opened"] < 60
    assert found["slowest"][0] < 20
    assert found["peak_mib"] < 1500


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 9))
def test_many_damaged_files_neither_crash_nor_hang_nor_fill_the_memory(seed):
    found = fuzz(seed, count=400, limit=3600)
    assert found["slowest"][0] < 60 and found["peak_mib"] < 2500
