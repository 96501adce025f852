"""Memory that runs out: how it is recognised, and work in blocks that are halved then."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
import torch.distributed as dist

SIGNS = (
    *("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED", "bad_alloc"),
    *("CUBLAS_STATUS_NOT_INITIALIZED", "unable to find an engine to execute this computation"),
    *("could not create a primitive", "could not create a memory"),  # oneDNN, on a CPU
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that an allocation failed, on any device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    if isinstance(error, dist.DistError):  # the ranks can no longer communicate
        return False
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)


class Blocks:
    """Work on rows in blocks of at most ``size``; halved, and said once, when memory runs out.

    Args:
        size: rows at a time.
        what: the rows, for the message, such as ``clips``.
    """

    def __init__(self, size: int, what: str) -> None:
        self.size, self.what = size, what

    def run(self, count: int, work: Callable[[int, int], None]) -> None:
        """Call ``work(start, stop)`` for blocks of ``count`` rows, in their order.

        A block whose memory ran out is worked on again in two halves, so ``work`` may keep nothing
        of what it did before it failed. The error of a single row is raised.
        """
        start = 0
        while start < count:
            stop = min(start + self.size, count)
            if self._fits(start, stop, work):
                start = stop

    def _fits(self, start: int, stop: int, work: Callable[[int, int], None]) -> bool:
        try:
            work(start, stop)
        except (RuntimeError, MemoryError) as error:
            if stop - start <= 1 or not is_out_of_memory(error):
                raise
        else:
            return True
        # Outside of the except block, where the error would keep what its frames hold.
        self.size = (stop - start) // 2
        print(
            f"evaluation: {self.size} {self.what} at a time from here on, as memory allows; this"
            " changes no result",
            file=sys.stderr,
        )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return False
