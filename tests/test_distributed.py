"""Losses over several ranks against the whole batch in one process."""

import pytest
import torch

from fusion.distributed import all_gather, all_reduce, own_rows


@pytest.mark.parametrize("world_size", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_ranks_together_compute_the_loss_of_the_whole_batch(tool, world_size):
    code, output, errors = tool("tests/losses/ranks.py", processes=world_size, timeout=100)
    assert code == 0, errors
    assert output.count(": equal") == 6


def test_alone_there_is_nothing_to_exchange():
    rows = torch.randn(3, 2)
    assert all_gather(rows) is rows
    assert all_reduce(rows) is rows
    assert own_rows(3) == slice(0, 3)
