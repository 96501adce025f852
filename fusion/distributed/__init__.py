"""Differentiable collectives over the global batch, and agreement of the ranks on failures.

Every rank holds as many rows of the batch as every other. A loss that compares all rows has the
same value on every rank, and every rank calls backward on it. So the gradient that a rank gets for
its own rows is that of the loss times the world size, which the mean of the parameters' gradients
over the ranks divides by again. In a single process every function returns its input.

A rank that fails alone, such as out of memory, would leave the others waiting: see
:class:`Agreement`.

Shapes: W ranks, b rows of this rank, B = W b rows of all ranks.
"""

from fusion.distributed.agreement import TIMEOUT_MINUTES, Agreement, OtherRankFailed
from fusion.distributed.buckets import GradientBuckets
from fusion.distributed.collectives import (
    all_gather,
    all_reduce,
    all_reduce_,
    all_reduce_max_,
    all_reduce_mean_,
    all_reduce_with_grad,
    broadcast_,
    gather_rows,
    sum_own_rows,
    warm_up,
)
from fusion.distributed.exchange import CommunicationError
from fusion.distributed.place import launched_as, own_rows, rank, world_size
from fusion.distributed.times import COMMUNICATION, WAITING, times
from fusion.distributed.waiting import first_then_others, meet

__all__ = [
    "COMMUNICATION",
    "TIMEOUT_MINUTES",
    "WAITING",
    "Agreement",
    "CommunicationError",
    "GradientBuckets",
    "OtherRankFailed",
    "all_gather",
    "all_reduce",
    "all_reduce_",
    "all_reduce_max_",
    "all_reduce_mean_",
    "all_reduce_with_grad",
    "broadcast_",
    "first_then_others",
    "gather_rows",
    "launched_as",
    "meet",
    "own_rows",
    "rank",
    "sum_own_rows",
    "times",
    "warm_up",
    "world_size",
]
