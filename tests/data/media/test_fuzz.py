"""No file, however damaged, ends the program that reads it, hangs it or fills the memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.media import fuzz

# Bytes that the process may need beyond what the undamaged files needed: packets that are held
# until a key frame comes, a piece of pictures and one of sound with a copy of each, and as much
# again for the frames of a decoder whose header was damaged.
GROWTH = 2**26 + 2 * 2 * fuzz.PIECE + 2**26

CASES = sorted((Path(__file__).parent / "cases").iterdir())
ROOT = Path(__file__).parents[3]


def read_damaged(seed, count, limit):
    command = [sys.executable, "-m", "tests.data.media.fuzz", str(seed), str(count), *CASES]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=limit, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_f23_damaged_files_neither_crash_nor_hang_nor_fill_the_memory():
    found = read_damaged(seed=0, count=60, limit=600)
    assert found["files"] == 60 and 20 < found["opened"] < 60
    assert found["slowest"][0] < 20
    assert found["grown"] < GROWTH


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 9))
def test_f23_many_damaged_files_neither_crash_nor_hang_nor_fill_the_memory(seed):
    found = read_damaged(seed, count=400, limit=3600)
    assert found["slowest"][0] < 60 and found["grown"] < GROWTH
