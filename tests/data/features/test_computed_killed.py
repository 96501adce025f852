"""Features that are computed by several processes, whose main one is killed."""

import shutil
import subprocess
import sys
import time

import psutil
import pytest

from fusion.data.demo import demo_corpus
from fusion.data.features.computed import FEW_VIDEOS
from tests.processes import ROOT

SCRIPT = """
import sys
from pathlib import Path
from fusion.data.features.computed import ComputedFeatures

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    ComputedFeatures(folder, [path.name for path in folder.iterdir()], "descriptors")
"""


@pytest.mark.slow
def test_f25_a_kill_of_the_main_process_leaves_no_workers_behind(tmp_path, monkeypatch):
    film = min((demo_corpus(size=2) / "videos").iterdir(), key=lambda path: path.stat().st_size)
    (tmp_path / "films").mkdir()
    for number in range(2 * FEW_VIDEOS):
        shutil.copy(film, tmp_path / "films" / f"{number}{film.suffix}")
    (tmp_path / "script.py").write_text(SCRIPT)
    monkeypatch.setenv("FUSION_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    words = [sys.executable, tmp_path / "script.py", tmp_path / "films"]
    main = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 100
    while not list((tmp_path / "cache").rglob("*.safetensors")):
        assert main.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    workers = psutil.Process(main.pid).children(recursive=True)
    assert workers
    main.kill()
    main.wait()
    assert not psutil.wait_procs(workers, timeout=10)[1]
