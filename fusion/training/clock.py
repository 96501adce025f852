"""Time that the parts of a job take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Adds up the seconds that the parts of a job take."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._start = time.perf_counter()

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Add the time of the ``with`` block to a part of the job."""
        start = time.perf_counter()
        yield
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - start

    def __str__(self) -> str:
        """Write the seconds of each part and of the whole."""
        whole = time.perf_counter() - self._start
        parts = ", ".join(f"{part} {seconds:.0f} s" for part, seconds in self.seconds.items())
        return f"{parts}; {whole:.0f} s in all"
