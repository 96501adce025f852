"""The rows of an embedding: whole items, parts of them from a start to an end, or windows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

from fusion.inference.items import Item


@dataclasses.dataclass
class Row:
    """What is embedded as one row: an item from ``start`` to ``end``, in seconds."""

    item: Item
    start: float
    end: float

    def __str__(self) -> str:
        if not self.start and math.isinf(self.end):
            return ""
        return f" from {self.start:g} s" + ("" if math.isinf(self.end) else f" to {self.end:g} s")


def check_wishes(
    combination: Any,
    start: float,
    end: float | None,
    windows: float | None,
    step: float | None,
    batch_size: Any,
) -> None:
    """Raise a ValueError, one line, if :meth:`fusion.Model.encode` cannot do what is wished."""
    if combination is not None and not isinstance(combination, str):
        raise ValueError(f"a combination is one string, such as 'va'; got {combination!r}")
    if not 0 <= start < (math.inf if end is None else end):
        raise ValueError(f"start must be before end, in seconds from 0 on; got {start}, {end}")
    if step is not None and windows is None:
        raise ValueError("step is the distance of windows; give windows=SECONDS too")
    if windows is not None and not (windows > 0 and (step is None or 0 < step <= windows)):
        raise ValueError(
            f"windows must be above 0, and step above 0 and at most as long; got {windows} and"
            f" {step}"
        )
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size must be a whole number above 0; got {batch_size!r}")


def cut(
    items: Sequence[Item],
    seconds: Callable[[Item], float],
    start: float,
    end: float | None,
    windows: float | None,
    step: float | None,
) -> tuple[list[Row], list[int]]:
    """Cut items into windows; return the rows, and how many each item has.

    ``seconds`` returns for how long an item has picture or sound. A ValueError names an item that
    has none after ``start``.
    """
    last = math.inf if end is None else end
    if windows is None:
        return [Row(item, start, last) for item in items], [1] * len(items)
    rows, counts = [], []
    for item in items:
        stop = min(last, seconds(item))
        if stop <= start:
            raise ValueError(f"{item.name} has neither picture nor sound after {start:g} s")
        found = windows_of(start, stop, windows, step or windows)
        rows += [Row(item, *window) for window in found]
        counts.append(len(found))
    return rows, counts


def windows_of(start: float, stop: float, length: float, step: float) -> list[tuple[float, float]]:
    """Return the windows from ``start`` to ``stop``, in seconds; the last may be shorter."""
    number = 1 + max(0, math.ceil((stop - start - length) / step - 1e-9))
    first = [start + i * step for i in range(number)]
    return [(begin, min(begin + length, stop)) for begin in first]
