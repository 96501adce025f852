"""Losses over several ranks against the whole batch in one process; waiting."""

import pytest
import torch

from fusion.distributed import all_gather, all_reduce, meet, own_rows


@pytest.mark.parametrize("world_size", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_f09_ranks_together_compute_the_loss_of_the_whole_batch(tool, world_size):
    code, output, errors = tool("tests/losses/ranks.py", processes=world_size, timeout=100)
    assert code == 0, errors
    assert output.count(": equal") == 6


def test_long_work_is_waited_for_and_a_process_that_hangs_is_not(tool, tmp_path):
    code, _, errors = tool("tests/training/waits.py", tmp_path / "seen", processes=2)
    assert code == 0, errors
    assert "process 1 waits for process 0: cooking (0.0 minutes)" in errors
    assert errors.count("waits for process 0: cooking") == 1
    assert "waits for the other processes: eating" in errors


def test_alone_there_is_nothing_to_exchange():
    rows = torch.randn(3, 2)
    assert all_gather(rows) is rows
    assert all_reduce(rows) is rows
    assert own_rows(3) == slice(0, 3)
    meet("nobody")
