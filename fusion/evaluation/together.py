"""What the processes of an evaluation tell one another.

W processes work on a share each and then communicate. One that failed alone would leave the others
waiting, so before they communicate they agree that all are well.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from fusion.distributed import rank, world_size


class OtherProcessFailed(RuntimeError):
    """Another process failed, and says why; this one cannot go on without it."""

    def __init__(self) -> None:
        super().__init__("another process of the evaluation failed; its message says why")


def tell(value: Any) -> list[Any]:
    """Return the small Python value that each process gives, in the order of ranks."""
    values: list[Any] = [value] * world_size()
    if len(values) > 1:
        dist.all_gather_object(values, value)
    return values


@contextlib.contextmanager
def all_or_none(together: bool = True) -> Iterator[None]:
    """Work alone; at the end every process raises an error if one of them did.

    Unless it is ``together``, the other processes do not take part.
    """
    if not together:
        yield
        return
    try:
        yield
    except Exception:
        tell(False)
        raise
    if not all(tell(True)):
        raise OtherProcessFailed


def share_of(count: int) -> slice:
    """Return which of so many rows are this process' share: neighbours, W nearly equal parts."""
    number, total = rank(), world_size()
    return slice(count * number // total, count * (number + 1) // total)


def sum_(values: Tensor) -> Tensor:
    """Sum a tensor over the processes, in place."""
    return _reduce(values, dist.ReduceOp.SUM) if world_size() > 1 else values


def max_(values: Tensor) -> Tensor:
    """Take the maximum over the processes, in place."""
    return _reduce(values, dist.ReduceOp.MAX) if world_size() > 1 else values


def on_wire(values: Tensor) -> Tensor:
    """Move a tensor to where the processes can send it: to the GPU with NCCL, else to the CPU."""
    is_nccl = dist.get_backend() == "nccl"
    return values.to(torch.device("cuda", torch.cuda.current_device()) if is_nccl else "cpu")


def _reduce(values: Tensor, operation: Any) -> Tensor:
    sent = on_wire(values).contiguous()
    dist.all_reduce(sent, op=operation)
    return values if sent is values else values.copy_(sent)
