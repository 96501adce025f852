"""What the ranks of a run tell one another about a batch, with gradient.

Every rank holds some rows of the batch. A loss that compares all rows is the same number on every
rank, and every rank calls backward on it; so the gradient that a rank gets for its own rows is
that of the loss, times the number of ranks, which averaging the gradients of the parameters puts
right (:func:`average_over_ranks`). Without ``torch.distributed`` everything here does nothing.

A rank that fails alone, for lack of memory, would leave the others waiting for ever. So whoever
wants to survive that has the ranks agree before each exchange, see :func:`ask_before_exchanges`.

Shapes: W ranks, b rows of this rank, B rows of all ranks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

BUCKET_BYTES = 64 * 2**20  # smaller tensors are averaged together, up to this size

_questions: list[Callable[[], object]] = []


@contextlib.contextmanager
def ask_before_exchanges(question: Callable[[], object]) -> Iterator[None]:
    """Call ``question`` before each exchange within the block, when its memory is taken already.

    It may exchange something itself, not through this module, and raise an error.
    """
    _questions.append(question)
    try:
        yield
    finally:
        _questions.pop()


def _ask() -> None:
    for question in _questions:
        question()


def world_size() -> int:
    """W; 1 without ``torch.distributed``."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def first_row(counts: Sequence[int]) -> int:
    """Say where this rank's rows begin among all rows."""
    return sum(counts[: dist.get_rank()]) if world_size() > 1 else 0


def equal_counts(rows: int) -> list[int]:
    """Give the rows of each rank if all have as many as this one."""
    return [rows] * world_size()


def exchange_counts(rows: int, device: torch.device | str = "cpu") -> list[int]:
    """Ask every rank for its number of rows: W numbers. The device must finish its work first."""
    if world_size() == 1:
        return [rows]
    counts = torch.zeros(world_size(), dtype=torch.int64, device=device)
    counts[dist.get_rank()] = rows
    return all_reduce_(counts).tolist()


def all_gather(rows: Tensor, counts: Sequence[int] | None = None) -> Tensor:
    """Put the rows of all ranks one after the other: (b, …) -> (B, …), with gradient.

    Args:
        rows: (b, …); a rank may have none.
        counts: rows of each rank; as many as here if not given.
    """
    if world_size() == 1:
        return rows
    return _Gather.apply(rows, list(counts or equal_counts(len(rows))))


def sum_over_ranks(values: Tensor) -> Tensor:
    """Add up a tensor over the ranks, without gradient."""
    return all_reduce_(values.detach().clone()) if world_size() > 1 else values


def all_reduce_with_grad(values: Tensor) -> Tensor:
    """Add up a tensor over the ranks, with gradient: what each rank makes of it is the same."""
    return _Total.apply(values) if world_size() > 1 else values


def all_reduce_(values: Tensor) -> Tensor:
    """Add up a tensor over the ranks in place, and give it back."""
    if world_size() > 1:
        _ask()
        dist.all_reduce(values)
    return values


@torch.no_grad()
def copy_from_first_rank(tensors: Iterable[Tensor]) -> None:
    """Replace tensors, in place, by those of the first rank."""
    if world_size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, 0)


@torch.no_grad()
def average_over_ranks(tensors: Sequence[Tensor]) -> None:
    """Replace floating-point tensors, in place, by their mean over the ranks.

    Small ones travel together; a large one needs no memory beside its own.
    """
    if world_size() == 1:
        return
    for bucket in _buckets(tensors):
        if len(bucket) == 1 and bucket[0].is_contiguous():
            flat = bucket[0]
        else:
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
        all_reduce_(flat).div_(world_size())
        if flat is not bucket[0]:
            parts = flat.split([tensor.numel() for tensor in bucket])
            for tensor, part in zip(bucket, parts, strict=True):
                tensor.copy_(part.view_as(tensor))


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Cut a list of tensors, in its order, into lists of one type and a limited size."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        size = sum(other.nbytes for other in bucket) + tensor.nbytes
        if bucket and (size > BUCKET_BYTES or bucket[0].dtype != tensor.dtype):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: list[int]) -> Tensor:
        # A sum with zeros: unlike `all_gather` it takes no memory of its own, which might fail
        # where the others can no longer be told, and the ranks may have different numbers of rows.
        ctx.counts = counts
        everything = rows.new_zeros(sum(counts), *rows.shape[1:])
        first = first_row(counts)
        everything[first : first + len(rows)] = rows
        return all_reduce_(everything)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        first = first_row(ctx.counts)
        total = sum_over_ranks(gradient.contiguous())
        return total[first : first + ctx.counts[dist.get_rank()]], None


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return sum_over_ranks(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * world_size()  # that of every rank, and all are equal
