"""How long a run communicates and waits."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import torch


class Times:
    """Adds up the seconds of some work of a device; see :data:`times`."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextlib.contextmanager
    def __call__(self, kind: str, device: torch.device) -> Iterator[None]:
        """Time a block: by the clock on a CPU, by events on a GPU, which is not waited for."""
        if device.type != "cuda":
            begun = time.perf_counter()
            try:
                yield
            finally:
                self._add(kind, time.perf_counter() - begun)
            return
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        try:
            yield
        finally:
            end.record()
            self._events.append((kind, begin, end))

    def take(self, kind: str) -> float:
        """Return the seconds since the last call, of what is known to have ended."""
        events, self._events = self._events, []
        for name, begin, end in events:
            if end.query():
                self._add(name, begin.elapsed_time(end) / 1000)
            else:
                self._events.append((name, begin, end))
        return self._seconds.pop(kind, 0.0)

    def _add(self, kind: str, seconds: float) -> None:
        self._seconds[kind] = self._seconds.get(kind, 0.0) + seconds


COMMUNICATION, WAITING = "communication", "waiting"
times = Times()  # of this process: in collectives, and in votes, where it waits for other ranks
