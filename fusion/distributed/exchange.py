"""The collectives themselves, and how a rank that failed goes on answering them.

Between two votes a step has collectives whose number and shapes only the loss knows. A rank that
runs out of memory there cannot go on with the loss. It must still take part in every collective, or
the others would wait for ever. So each rank notes its collectives (:class:`Region`). If a region
takes long, a thread announces them in the store of the launcher. The failed rank reads there what
the others do, and answers with zeros, until they vote. In a step without a failure nothing is
announced, unless a rank is slow.

Embeddings are sent by all-gather, and their gradients by reduce-scatter. The gloo backend of torch
has reduce-scatter only as an all-reduce of a copy, with twice the bytes; on a CPU the parts of a
sum are therefore exchanged by all-to-all and added here.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from fusion.distributed.place import rank, world_size
from fusion.distributed.times import COMMUNICATION, times

PATIENCE = 0.2  # seconds until the collectives of a region are announced
POLL = 0.005  # seconds between two looks of a rank that failed
VOTE = "vote"
GATHER, SUM_ROWS, SUM, LARGEST = "gather", "sum_rows", "sum", "largest"  # kinds of collectives


class CommunicationError(RuntimeError):
    """A collective failed: a rank ended, or did not answer in time."""


class Region:
    """The collectives of this rank between two votes of an attempt to take a step."""

    def __init__(self, number: int) -> None:
        self.number = number  # of the attempt, the same on all ranks
        self.headers: list[str] = []  # what this rank has done, in order
        self.is_open = True
        self._announced, self._store = 0, find_store()
        self._lock = threading.Lock()

    def announce(self) -> None:
        """Tell ranks that failed what this one has done so far."""
        with self._lock:
            done = len(self.headers)
            for place in range(self._announced, done):
                self._store.set(self._key(place), f"{self.number} {self.headers[place]}")
            self._announced = done

    def answer(self, device: torch.device) -> None:
        """Take part, with zeros, in what the other ranks do until they vote or have all failed.

        The caller must have freed the memory of its step.
        """
        self._store.set(self._key("failed", rank()), f"{self.number} {len(self.headers)}")
        self.announce()
        while (header := self._next()) != VOTE:
            _answer(header, device)
            self.announce()

    def _next(self) -> str:
        """Wait until another rank announces what follows."""
        while True:
            if (header := self._read(len(self.headers))) is not None:
                return header
            failed = [self._read("failed", other) for other in range(world_size())]
            ends = [int(end) for end in failed if end is not None]
            if len(ends) == len(failed) and max(ends) <= len(self.headers):
                return VOTE
            time.sleep(POLL)

    def _key(self, *names: object) -> str:
        # Two sets of keys are enough: a vote separates the attempts.
        return "/".join(map(str, ("region", self.number % 2, *names)))

    def _read(self, *names: object) -> str | None:
        key = self._key(*names)
        if not self._store.check([key]):
            return None
        number, _, text = self._store.get(key).decode().partition(" ")
        return text if int(number) == self.number else None


class _Announcer(threading.Thread):
    """Announces the collectives of a region that takes long, while this process may be waiting."""

    def __init__(self) -> None:
        super().__init__(name="announcer", daemon=True)
        self._region: Region | None = None
        self._begun = threading.Event()

    def begin(self, region: Region) -> None:
        """Watch a region until it is closed."""
        self._region = region
        self._begun.set()

    def run(self) -> None:
        """Wait for a region, and announce what it does once it has taken long."""
        while True:
            self._begun.wait()
            self._begun.clear()
            region, patience = self._region, PATIENCE
            while region is not None and region.is_open and region is self._region:
                time.sleep(patience)
                if region.is_open:
                    region.announce()
                patience = POLL


_attempts = itertools.count()  # of this process: keys of an earlier training may still be there
_region: Region | None = None
_announcer: _Announcer | None = None


def begin_region() -> Region:
    """Note the collectives from here on; every rank calls this for the same attempts."""
    global _region, _announcer
    if _announcer is None:
        _announcer = _Announcer()
        _announcer.start()
    _region = Region(next(_attempts))
    _announcer.begin(_region)
    return _region


def end_region() -> None:
    """Note no collectives any more."""
    global _region
    if _region is not None:
        _region.is_open = False
    _region = None


def note_vote() -> None:
    """Note that this rank goes to the vote that ends the region."""
    if _region is not None:
        _region.headers.append(VOTE)


def find_store() -> Any:
    """Return the key-value store of the launcher that all ranks share."""
    return dist.PrefixStore("fusion", dist.distributed_c10d._get_default_store())


class Pending:
    """A collective that has begun; :meth:`wait` before its tensors are read or written."""

    def __init__(self, work: Any, device: torch.device) -> None:
        self._work, self._device = work, device

    def wait(self) -> None:
        """Wait for it: the process on a CPU, only the stream of the device on a GPU."""
        with times(COMMUNICATION, self._device):
            try:
                self._work.wait()
            except RuntimeError as error:
                raise explain(error) from error


def begin(kind: str, source: Tensor, target: Tensor) -> Pending:
    """Begin a collective of contiguous tensors; ``target`` is ``source`` for sums over ranks.

    ``gather``: n numbers to W n. ``sum_rows``: on a CPU, W n to W n, each rank's part of the sum,
    which the caller adds up; on a GPU W n to n. ``sum`` and ``largest``: in place.
    """
    work = CALLS[kind](source, target)
    if _region is not None:
        # After the call: what raised an error is not done yet, and will be answered.
        size = source.numel()
        _region.headers.append(f"{kind} {size} {str(source.dtype).removeprefix('torch.')}")
    return Pending(work, source.device)


def scattered(values: Tensor) -> Tensor:
    """Allocate the target of ``sum_rows``."""
    if values.device.type == "cpu":
        return torch.empty_like(values)
    return values.new_empty(len(values) // world_size(), *values.shape[1:])


def gathered(rows: Tensor) -> Tensor:
    """Allocate the target of ``gather``."""
    shape = (len(rows) * world_size(), *rows.shape[1:])
    if rows.device.type == "cpu":  # gloo makes a copy of its own: fail here rather than there
        rows.new_empty(2, *shape)
    return rows.new_empty(shape)


def explain(error: RuntimeError) -> CommunicationError:
    """Say in one line what became of the other ranks."""
    text = str(error).strip().splitlines()[-1]
    if "timed out" in text.lower() or "timeout" in text.lower():
        return CommunicationError(
            f"a process waited longer than trainer.timeout_minutes for the others ({text}); one of"
            " them hangs or is very slow: look at the log of each, raise trainer.timeout_minutes"
            " if it was only slow, and go on with resume=true"
        )
    return CommunicationError(f"another process ended or cannot be reached ({text})")


def _answer(header: str, device: torch.device) -> None:
    kind, size, name = header.split()
    source = torch.zeros(int(size), dtype=getattr(torch, name), device=device)
    allocate: Callable[[Tensor], Tensor] = {GATHER: gathered, SUM_ROWS: scattered}.get(
        kind, lambda values: values
    )
    begin(kind, source, allocate(source)).wait()


def _gather(source: Tensor, target: Tensor) -> Any:
    # Newer versions of torch warn of the older name.
    call = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)
    return call(target, source, async_op=True)


def _sum_rows(source: Tensor, target: Tensor) -> Any:
    if source.device.type == "cpu":
        return dist.all_to_all_single(target, source, async_op=True)
    call = getattr(dist, "reduce_scatter_single", dist.reduce_scatter_tensor)
    return call(target, source, async_op=True)


CALLS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    GATHER: _gather,
    SUM_ROWS: _sum_rows,
    SUM: lambda source, _: dist.all_reduce(source, async_op=True),
    LARGEST: lambda source, _: dist.all_reduce(source, op=dist.ReduceOp.MAX, async_op=True),
}
