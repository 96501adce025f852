"""The trials of tools/reliability.py; each starts whole runs."""

import json
import sys

import numpy as np
import pytest

from tools.faults.kills import choose_chunk

RELIABILITY = "tools/reliability.py"


def last_line(output):
    return json.loads(output.splitlines()[-1])


@pytest.mark.parametrize(
    ("batch", "groups", "processes", "chunk"),
    [(64, [8], 1, 32), (64, [8], 8, 8), (12, [2], 2, 2), (4, [2], 1, 2), (12, [4, 6], 1, 12)],
)
def test_chunks_are_whole_groups_of_batchnorm(batch, groups, processes, chunk):
    parts = {str(n): {"encoder": {"batchnorm_group": size}} for n, size in enumerate(groups)}
    config = {"trainer": {"batch_size": batch}, "model": parts | {"x": {"batchnorm_group": None}}}
    assert choose_chunk(config, processes) == chunk


@pytest.mark.slow
def test_f07_damaged_checkpoints_are_passed_over_or_refused(tool):
    code, output, errors = tool(RELIABILITY, "damage", "--times", "20")
    assert code == 0, errors
    seen = last_line(output)["seen"]
    assert seen == {"went on, equal to the undisturbed run": 18, "refused in one line": 2}


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["--times", "10"], id="f01"),
        pytest.param(["--times", "5", "--variants", "plain", "--processes", "2"], id="f03"),
    ],
)
def test_f01_f03_killed_runs_end_like_one_that_was_not(tool, words):
    code, output, errors = tool(RELIABILITY, "kills", *words, timeout=3500)
    assert code == 0, errors
    seen = last_line(output)
    assert seen["kills"] == int(words[1]) >= seen["runs"] == seen["equal"] > 0
    assert seen["most steps redone"] <= 5  # save_every
    assert seen["processes left"] == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_f02_runs_that_are_told_to_stop_at_random_moments_redo_no_step(tool):
    words = ["--times", "4", "--variants", "plain", "--signal", "SIGTERM"]
    code, output, errors = tool(RELIABILITY, "kills", *words, timeout=800)
    assert code == 0, errors
    seen = last_line(output)
    assert seen["kills"] == 4 and seen["runs"] == seen["equal"] > 0
    assert seen["most steps redone"] == seen["processes left"] == seen["badly ended"] == 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("processes", [2, 4])
def test_f12_thirty_launches_end_with_0(tool, processes):
    words = ["launches", "--times", "30", "--processes", processes]
    code, output, errors = tool(RELIABILITY, *words, timeout=3500)
    assert code == 0, errors
    assert last_line(output)["seen"][str(processes)]["codes"] == {"0": 30}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_f19_f21_files_that_want_to_harm_are_refused_in_one_line(tool):
    code, output, errors = tool(RELIABILITY, "hostile", "--mib", "64", timeout=800)
    assert code == 0, errors
    seen = last_line(output)["seen"]
    assert len(seen) == 18
    assert {one["outcome"] for one in seen.values()} == {"refused in one line"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_f14_a_run_goes_on_without_the_clips_that_cannot_be_read(tool):
    words = ["corrupt", "--films", "2", "--shares", "0", "0.25"]
    code, output, errors = tool(RELIABILITY, *words, timeout=800)
    assert code == 0, errors
    whole, damaged = last_line(output)["seen"]
    assert (whole["corrupt"], damaged["corrupt"]) == (0, 4)
    assert (whole["named"], damaged["named"]) == (0, 4)  # each of them once


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_f29_neither_memory_nor_open_files_grow(tool):
    code, output, errors = tool("tests/training/growth.py", timeout=100)
    assert code == 0, errors
    steps, memory, files = np.array(last_line(output)).T
    assert steps[-1] == 2000
    later = steps > 400  # what is made once has been made
    slope = np.polyfit(steps[later], memory[later], 1)[0]
    assert slope * 1000 < 2**20  # bytes in 1,000 steps
    assert files[later & (steps > 1334)].max() <= files[steps <= 1334].max()  # the last epoch


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("launch", ["python, 2 workers, group", "accelerate", "torchrun-2"])
def test_f02_a_run_that_is_told_to_stop_saves_however_it_was_launched(tool, launch):
    words = ["signals", "--signals", "SIGTERM", "--launches", launch]
    code, output, errors = tool(RELIABILITY, *words, timeout=800)
    assert code == 0, errors
    seen = last_line(output)[f"{launch}, SIGTERM"]
    assert seen["saved"] and seen["lines that say so"] == 1 and not seen["processes left"]
    assert seen["exit code"] == (1 if "torchrun" in launch else 143)  # its own
    assert seen["tracebacks"] == (1 if "torchrun" in launch else 0)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_f04_a_rank_that_dies_is_started_again_and_goes_on(tool):
    code, output, errors = tool(RELIABILITY, "restart", timeout=800)
    assert code == 0, errors
    assert last_line(output) == {"command": "restart", "exit code": 0, "every step once": True}
