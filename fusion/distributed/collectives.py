"""Sums, means and concatenations over the ranks, with and without gradient."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from fusion.distributed import exchange
from fusion.distributed.place import world_size

BUCKET_BYTES = 64 * 2**20  # smaller tensors are averaged together, up to this size


def all_gather(rows: Tensor) -> Tensor:
    """Concatenate the rows of all ranks, with gradient: (b, …) -> (B, …)."""
    return _AllGather.apply(rows) if world_size() > 1 else rows


@torch.no_grad()
def gather_rows(rows: Tensor) -> Tensor:
    """Concatenate the rows of all ranks, without gradient: (b, …) -> (B, …)."""
    if world_size() == 1:
        return rows
    rows = rows.contiguous()
    everything = exchange.gathered(rows)
    exchange.begin(exchange.GATHER, rows, everything).wait()
    return everything


@torch.no_grad()
def sum_own_rows(values: Tensor) -> Tensor:
    """Sum over the ranks, and return the rows of this one: (B, …) -> (b, …)."""
    if world_size() == 1:
        return values
    values = values.contiguous()
    target = exchange.scattered(values)
    exchange.begin(exchange.SUM_ROWS, values, target).wait()
    if len(target) == len(values):  # the parts of all ranks
        target = target.unflatten(0, (world_size(), -1)).sum(dim=0)
    return target


def all_reduce_(values: Tensor) -> Tensor:
    """Sum a tensor over the ranks in place, and return it."""
    return _reduce_(values, exchange.SUM)


def all_reduce_max_(values: Tensor) -> Tensor:
    """Take the largest over the ranks in place, and return it."""
    return _reduce_(values, exchange.LARGEST)


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
    for bucket in make_buckets(tensors):
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


def warm_up(device: torch.device) -> None:
    """Let each kind of collective run once, as NCCL allocates memory of its own in the first.

    It does so outside of torch's allocator, so it must not find the device full.
    """
    if world_size() > 1 and device.type == "cuda":
        for size in (world_size(), BUCKET_BYTES // 4):  # NCCL treats small and large ones apart
            values = torch.zeros(size - size % world_size(), device=device)
            all_reduce_(values)
            gather_rows(sum_own_rows(values))


def make_buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
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


def _reduce_(values: Tensor, kind: str) -> Tensor:
    if world_size() > 1:
        exchange.begin(kind, values, values).wait()
    return values


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        return gather_rows(rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return sum_own_rows(gradient)


class _AllReduce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return all_reduce(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * world_size()  # the gradients of all ranks are equal
