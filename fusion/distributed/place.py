"""Which process this is, of how many."""

from __future__ import annotations

import os

import torch.distributed as dist


def world_size() -> int:
    """W; 1 without ``torch.distributed``."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, 0 to W - 1."""
    return dist.get_rank() if world_size() > 1 else 0


def launched_as() -> tuple[int, int]:
    """Return rank and number of processes as the launcher says, for those that never communicate.

    ValueError: ``RANK`` and ``WORLD_SIZE`` contradict each other.
    """
    number, count = (int(os.environ.get(n) or d) for n, d in (("RANK", 0), ("WORLD_SIZE", 1)))
    if not 0 <= number < count:
        raise ValueError(f"RANK counts from 0 and is less than WORLD_SIZE; got {number} of {count}")
    return number, count


def own_rows(num_rows: int) -> slice:
    """Return where the b rows of this rank are among all B rows."""
    return slice(rank() * num_rows, (rank() + 1) * num_rows)
