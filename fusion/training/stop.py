"""Signals: a run saves its state before it stops."""

from __future__ import annotations

import signal
from types import FrameType


class Stopped(Exception):
    """A signal ended the run; its state is saved. ``signal`` is the number."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; go on with resume=true")
        self.signal = number


class StopRequest:
    """Records SIGTERM and SIGINT inside its ``with`` block; ``signal`` is the last one, or 0."""

    def __init__(self) -> None:
        self.signal = 0

    def __enter__(self) -> StopRequest:
        numbers = (signal.SIGTERM, signal.SIGINT)
        self._handlers = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
