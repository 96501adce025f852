"""What the curves of a range test say: the rate to take, and where training diverges."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence

import numpy as np

LEAST_GAIN = 0.01  # share of the loss; less is no gain
SAFE = 10.0  # the rate to take is so many times smaller than the one that diverges


@dataclasses.dataclass(frozen=True)
class Curve:
    """One run of growing rates against its control.

    Attributes:
        gain: after each step, how much lower the loss is than the control's, smoothed; shorter than
            the rates if the run was stopped.
        recommended: the rate to take; None: no rate had a gain.
        diverges: the rate at which half of the largest gain is lost again; None: no rate did.
    """

    gain: list[float]
    recommended: float | None
    diverges: float | None


def read_curve(rates: Sequence[float], losses: Sequence[float], control: Sequence[float]) -> Curve:
    """Read the rate to take from the losses of a run and of its control on the same batches.

    It lies between the rate at which half of the largest gain is reached and the one with the
    largest gain, as their geometric mean, but is at most a tenth of the one that diverges. Unlike a
    steepest point it needs no derivative of a noisy curve.
    """
    pairs = zip(losses, control, strict=False)
    plain = [known - value for value, known in pairs if math.isfinite(known - value)]
    gain = smooth(plain, window_of(len(rates)))
    stopped = len(plain) < len(rates)
    peak = max(range(len(gain)), key=gain.__getitem__, default=0)
    largest = gain[peak] if gain else 0.0
    if largest < LEAST_GAIN * abs(control[0]):
        limit = -LEAST_GAIN * abs(control[0])
        return Curve(gain, None, _first_below(rates, gain, limit, 0, stopped))
    diverges = _first_below(rates, gain, largest / 2, peak, stopped)
    reached = next(rate for rate, value in zip(rates, gain, strict=False) if value >= largest / 2)
    between = math.sqrt(reached * rates[peak])
    return Curve(gain, min(between, (diverges or math.inf) / SAFE), diverges)


def window_of(steps: int) -> int:
    """Return how many steps are averaged: an odd number, about half a decade of eight."""
    return max(3, steps // 16 | 1)


def smooth(values: Sequence[float], window: int) -> list[float]:
    """Average each value with its neighbours, ``window`` in all and fewer at the ends."""
    half = window // 2
    return [
        float(np.mean(values[max(0, place - half) : place + half + 1]))
        for place in range(len(values))
    ]


def middle(values: Sequence[float | None]) -> float | None:
    """Return the median of rates, on their logarithmic scale; None if most are None.

    Of an even number it is the geometric mean of the two in the middle.
    """
    known = [math.log(value) for value in values if value is not None]
    return math.exp(statistics.median(known)) if 2 * len(known) > len(values) else None


def _first_below(
    rates: Sequence[float], gain: Sequence[float], limit: float, start: int, stopped: bool
) -> float | None:
    """Return the first rate from ``start`` on with a lower gain, or that at which a run stopped."""
    below = (rates[place] for place in range(start, len(gain)) if gain[place] < limit)
    return next(below, rates[min(len(gain), len(rates) - 1)] if stopped else None)
