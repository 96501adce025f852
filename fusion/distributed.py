"""Differentiable collectives over the global batch, and agreement of the ranks on failures.

Every rank holds as many rows of the batch as every other. A loss that compares all rows has the
same value on every rank, and every rank calls backward on it. So the gradient that a rank gets for
its own rows is that of the loss times the world size, which :func:`all_reduce_mean_` of the
parameters' gradients divides by again. In a single process every function returns its input.

A rank that fails alone, such as out of memory, would leave the others waiting. A caller that wants
to survive that runs a check before each collective, see :func:`check_before_collectives`.

Shapes: W ranks, b rows of this rank, B = W b rows of all ranks.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

BUCKET_BYTES = 64 * 2**20  # smaller tensors are averaged together, up to this size

_checks: list[Callable[[], object]] = []


@contextlib.contextmanager
def check_before_collectives(check: Callable[[], object]) -> Iterator[None]:
    """Call ``check`` before each collective within the block, after its memory is allocated.

    The check may raise an error, and communicate by an :class:`Agreement`.
    """
    _checks.append(check)
    try:
        yield
    finally:
        _checks.pop()


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


def all_gather(rows: Tensor) -> Tensor:
    """Concatenate the rows of all ranks, with gradient: (b, …) -> (B, …)."""
    return _AllGather.apply(rows) if world_size() > 1 else rows


def all_reduce_(values: Tensor) -> Tensor:
    """Sum a tensor over the ranks in place, and return it."""
    if world_size() > 1:
        for check in _checks:
            check()
        dist.all_reduce(values)
    return values


def all_reduce(values: Tensor) -> Tensor:
    """Return the sum of a tensor over the ranks, without gradient."""
    return all_reduce_(values.detach().clone()) if world_size() > 1 else values


def all_reduce_with_grad(values: Tensor) -> Tensor:
    """Return the sum of a tensor over the ranks; every rank must make the same loss of it."""
    return _AllReduce.apply(values) if world_size() > 1 else values


@torch.no_grad()
def all_reduce_mean_(tensors: Sequence[Tensor]) -> None:
    """Replace floating-point tensors, in place, by their mean over the ranks.

    Small tensors are sent together; a large one takes no memory beside its own.
    """
    if world_size() == 1:
        return
    for bucket in _buckets(tensors):
        if len(bucket) == 1 and bucket[0].is_contiguous():
            all_reduce_(bucket[0]).div_(world_size())
            continue
        flat = all_reduce_(torch.cat([x.reshape(-1) for x in bucket])).div_(world_size())
        for tensor, part in zip(bucket, flat.split([x.numel() for x in bucket]), strict=True):
            tensor.copy_(part.view_as(tensor))


@torch.no_grad()
def broadcast_(tensors: Iterable[Tensor]) -> None:
    """Replace tensors, in place, by those of rank 0."""
    if world_size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, 0)


class OtherRankFailed(Exception):
    """Another rank failed; this one stops where it is, to repeat the step with it."""


class Agreement:
    """Agreement of the ranks on failures; communicates over the CPU, whatever the device.

    Each vote also carries the number that ``ask`` returns on this rank, such as a signal; ``asked``
    is the largest one of the last vote, on every rank.
    """

    def __init__(self) -> None:
        self.ask: Callable[[], int] = lambda: 0
        self.asked = 0
        self.group: Any = None  # torch's own types of it differ between versions
        if world_size() > 1:
            self.group = dist.new_group(backend="gloo", timeout=timedelta(hours=12))

    def vote(self, well: bool) -> bool:
        """Report whether this rank is well; return whether all are."""
        numbers = self.gather(int(well) + 2 * self.ask())
        self.asked = max(numbers) >> 1
        return all(number & 1 for number in numbers)

    def check(self) -> None:
        """Report that this rank is well; raise OtherRankFailed if another one is not."""
        if not self.vote(True):
            raise OtherRankFailed

    def gather(self, number: int) -> list[int]:
        """Return the number that each rank gives: W numbers."""
        if self.group is None:
            return [number]
        numbers = torch.zeros(world_size(), dtype=torch.int64)
        numbers[rank()] = number
        dist.all_reduce(numbers, group=self.group)
        return numbers.tolist()


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Cut a list of tensors, in its order, into lists of one dtype and a limited size."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        size = sum(other.nbytes for other in bucket) + tensor.nbytes
        if bucket and (size > BUCKET_BYTES or bucket[0].dtype != tensor.dtype):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        # A sum with zeros, because the all_gather of torch allocates memory of its own. If that
        # failed, it would be too late to tell the other ranks.
        everything = rows.new_zeros(len(rows) * world_size(), *rows.shape[1:])
        everything[own_rows(len(rows))] = rows
        return all_reduce_(everything)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return all_reduce(gradient.contiguous())[own_rows(len(gradient) // world_size())]


class _AllReduce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return all_reduce(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * world_size()  # the gradients of all ranks are equal
