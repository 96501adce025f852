"""Agreement of the ranks on failures: they vote, and a failed rank answers until the next vote."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from fusion.distributed import exchange
from fusion.distributed.place import rank, world_size
from fusion.distributed.times import WAITING, times

TIMEOUT_MINUTES = 10.0


class OtherRankFailed(Exception):
    """Another rank failed; this one stops where it is, to repeat the step with it."""

    def __init__(self, votes: list[int]) -> None:
        super().__init__()
        self.votes = votes


class Agreement:
    """Votes of the ranks, over the CPU, whatever the device.

    Each vote also carries the number that ``ask`` returns on this rank, such as a signal; ``asked``
    is the largest one of the last vote, on every rank.

    A vote that takes longer than ``timeout_minutes`` is an error on every rank.
    """

    def __init__(self, timeout_minutes: float = TIMEOUT_MINUTES) -> None:
        self.ask: Callable[[], int] = lambda: 0
        self.asked = 0
        self.group: Any = None  # torch's own types of it differ between versions
        if world_size() > 1:
            timeout = timedelta(minutes=timeout_minutes)
            self.group = dist.new_group(backend="gloo", timeout=timeout)

    def gather(self, number: int) -> list[int]:
        """Return the number that each rank gives: W numbers."""
        numbers, wishes = self._exchange(number, self.ask())
        self.asked = max(wishes)
        return numbers

    def _exchange(self, number: int, wish: int) -> tuple[list[int], list[int]]:
        if self.group is None:
            return [number], [wish]
        both = torch.zeros(2, world_size(), dtype=torch.int64)
        both[:, rank()] = torch.tensor([number, wish])
        exchange.note_vote()
        with times(WAITING, both.device):
            try:
                dist.all_reduce(both, group=self.group)
            except RuntimeError as error:
                raise exchange.explain(error) from error
        exchange.end_region()
        numbers, wishes = both.tolist()
        return numbers, wishes

    def begin(self) -> None:
        """Note collectives from here to the next vote, so that a failed rank can :meth:`answer`."""
        if self.group is not None:
            self._region = exchange.begin_region()

    def answer(self, device: torch.device) -> None:
        """Take part in the collectives of the others until they vote; free memory before."""
        if self.group is not None:
            self._region.answer(device)

    @contextlib.contextmanager
    def attempt(self) -> Iterator[None]:
        """End the region of collectives at the end of the block, whatever happens."""
        try:
            yield
        finally:
            exchange.end_region()
