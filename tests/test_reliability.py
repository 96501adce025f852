"""The trials of tools/reliability.py; each starts whole runs."""

import json

import pytest

RELIABILITY = "tools/reliability.py"


def last_line(output):
    return json.loads(output.splitlines()[-1])


@pytest.mark.slow
def test_f07_damaged_checkpoints_are_passed_over_or_refused(tool):
    code, output, errors = tool(RELIABILITY, "damage", "--times", "20")
    assert code == 0, errors
    seen = last_line(output)["seen"]
    assert seen == {"went on, equal to the undisturbed run": 18, "refused in one line": 2}


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
