"""What the ranks of a run tell one another about a batch, with gradient.

Every rank holds some rows of the batch. A loss that compares all rows is the same number on every
rank, and every rank calls backward on it; so the gradient that a rank gets for its own rows is
that of the loss, times the number of ranks, which the averaging of DDP puts right. Without
``torch.distributed`` everything here does nothing.

Shapes: W ranks, b rows of this rank, B rows of all ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def num_ranks() -> int:
    """W; 1 without ``torch.distributed``."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def first_row(counts: Sequence[int]) -> int:
    """Say where this rank's rows begin among all rows."""
    return sum(counts[: dist.get_rank()]) if num_ranks() > 1 else 0


def equal_counts(rows: int) -> list[int]:
    """Give the rows of each rank if all have as many as this one."""
    return [rows] * num_ranks()


def exchange_counts(rows: int, device: torch.device | str = "cpu") -> list[int]:
    """Ask every rank for its number of rows: W numbers. The device must finish its work first."""
    if num_ranks() == 1:
        return [rows]
    mine = torch.tensor([rows], device=device)
    all_of_them = [torch.empty_like(mine) for _ in range(num_ranks())]
    dist.all_gather(all_of_them, mine)
    return [int(count) for count in all_of_them]


def gather_rows(rows: Tensor, counts: Sequence[int] | None = None) -> Tensor:
    """Put the rows of all ranks one after the other: (b, …) -> (B, …), with gradient.

    Args:
        rows: (b, …); a rank may have none.
        counts: rows of each rank; as many as here if not given.
    """
    if num_ranks() == 1:
        return rows
    return _Gather.apply(rows, list(counts or equal_counts(len(rows))))


def sum_over_ranks(values: Tensor) -> Tensor:
    """Add up a tensor over the ranks, without gradient."""
    if num_ranks() > 1:
        values = values.detach().clone()
        dist.all_reduce(values)
    return values


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: list[int]) -> Tensor:
        ctx.counts = counts
        most = max(counts)
        padded = rows.new_zeros(most, *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        first = first_row(ctx.counts)
        total = sum_over_ranks(gradient.contiguous())
        return total[first : first + ctx.counts[dist.get_rank()]], None
