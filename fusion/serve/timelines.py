"""When the steps that a user writes happen in a film of the index: their scores over its time.

Shapes: T windows of a film, K steps.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from fusion.evaluation.localisation.assignment import assign_best, assign_in_order
from fusion.inference.localising import Localiser, Located
from fusion.report.score_curves import thin
from fusion.serve.schemas import Refused

KEPT = 8  # films whose windows stay in memory
MOST_STEPS = 20
LONGEST = 4 * 3600.0  # seconds of a film: its windows are embedded when it is first asked about

Window = tuple[dict[str, Tensor], bool]


class Timelines:
    """Scores steps in films. The windows of a film are embedded once, and stay for other steps.

    Args:
        model: of the index.
        lock: of the model, which embeds one thing at a time; it is let go between windows, so that
            questions in words are answered meanwhile.
        say: writes an error without paths of this machine.
        unknown_words: finds the words of a text that the model leaves out.
    """

    def __init__(
        self,
        model: Any,
        lock: threading.Lock,
        say: Callable[[Exception], str] = str,
        unknown_words: Callable[[str], list[str]] = lambda words: [],
    ) -> None:
        self.model, self._lock, self._say = model, lock, say
        self._unknown_words = unknown_words
        self._kept: OrderedDict[Any, list[Window]] = OrderedDict()
        self._closed = threading.Event()

    def close(self) -> None:
        """Let work that goes on end."""
        self._closed.set()

    def find(self, film: Path, steps: Sequence[str], in_order: bool) -> dict[str, Any]:
        """Find the second of each step.

        Raises:
            Refused: 400 there are no steps, or the model knows none of the words of one; 404 the
                film cannot be read; 413 it is too long; 503 the server stops.
        """
        begin = time.perf_counter()
        steps = [" ".join(step.split()) for step in steps if step.strip()]
        if not steps:
            raise Refused(400, "there is no step; write what happens, a step in each line")
        if len(steps) > MOST_STEPS:
            raise Refused(400, f"{len(steps)} steps are too many; write at most {MOST_STEPS}")
        with self._lock:
            unknown = self._unknown_words(" ".join(steps))
            try:
                finder = Localiser(self.model, steps)
            except ValueError as error:
                raise Refused(400, self._say(error)) from None
        rows = [finder.score(*window) for window in self._windows(finder, film)]
        scores = np.stack(rows) if rows else np.zeros((0, len(steps)), np.float32)
        found = assign_in_order(scores) if in_order else assign_best(scores)
        located = Located(tuple(steps), scores, found, finder.windows.step)
        took = round(time.perf_counter() - begin, 6)
        return as_answer(located) | {"unknown": unknown, "seconds": took}

    def _windows(self, finder: Localiser, film: Path) -> list[Window]:
        try:
            state = os.stat(film)
        except OSError as error:
            raise Refused(404, f"{film.name} cannot be read now ({error.strerror})") from None
        key = (film, state.st_mtime_ns, state.st_size)
        if (known := self._kept.pop(key, None)) is None:
            known = list(self._embed(finder, film))
        self._kept[key] = known
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return known

    def _embed(self, finder: Localiser, film: Path) -> Iterator[Window]:
        windows = finder.embed(film)
        longest = LONGEST / finder.windows.step
        for number in range(math.ceil(longest) + 1):
            if self._closed.is_set():
                raise Refused(503, "the server stops")
            try:
                with self._lock:
                    window = next(windows, None)
            except (ValueError, OSError) as error:
                raise Refused(404, f"{film.name} cannot be read now ({self._say(error)})") from None
            if window is None:
                return
            if number >= longest:
                break
            yield window
        with contextlib.suppress(ValueError, OSError):
            windows.close()  # type: ignore[attr-defined]
        raise Refused(413, f"{film.name} is longer than {LONGEST / 3600:g} hours")


def as_answer(found: Located) -> dict[str, Any]:
    """Write steps with their times and curves, ready for JSON; None where nothing is known."""
    steps = []
    for number, (text, span) in enumerate(zip(found.steps, found.times(), strict=True)):
        times, values = thin(found.scores[:, number].astype(np.float64), found.grid)
        start, end = span or (None, None)
        second = int(found.seconds[number])
        steps.append(
            {
                "step": text,
                "start": start,
                "end": end,
                "score": None if span is None else _number(found.scores[second, number]),
                "curve": [
                    [round(float(t), 3), _number(v)] for t, v in zip(times, values, strict=True)
                ],
            }
        )
    return {"duration": len(found.scores) * found.grid, "steps": steps}


def _number(value: Any) -> float | None:
    return round(float(value), 4) if math.isfinite(value) else None
