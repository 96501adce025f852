"""What each term, and each pair of terms, does to each direction: a factorial analysis.

The main effect of a term is the mean of ``y(with it) - y(without it)`` over all pairs of settings
that differ in this term alone. The effect of a pair is the mean of ``y(both) - y(first) - y(second)
+ y(neither)``: what they do together beyond what each does alone. Only settings that train every
modality of the direction are compared. Intervals are of a bootstrap over clips, the same for all
settings, and over the seeds of each setting.

Shapes: S settings, Z seeds, C clips, D draws.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
DRAWS, BLOCK = 1000, 100


class Estimate(NamedTuple):
    """A number with its 95 % interval, in percentage points."""

    value: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


class Effect(NamedTuple):
    """An effect on a direction."""

    terms: tuple[str, ...]  # one, or two
    estimate: Estimate
    pairs: int  # of settings that were compared


def contrasts(
    present: NDArray[np.bool_], valid: NDArray[np.bool_], columns: Sequence[int]
) -> tuple[Floats, int]:
    """Return the weights of the settings whose sum is an effect, (S,), and how many are compared.

    Args:
        present: (S, terms) which terms a setting trains.
        valid: (S,) which settings train the direction.
        columns: one term, or two.
    """
    places = {tuple(row): i for i, row in enumerate(present.tolist()) if valid[i]}
    weights, count = np.zeros(len(present)), 0
    for row in places:
        if any(row[c] for c in columns):
            continue
        corner = []
        for on in itertools.product((False, True), repeat=len(columns)):
            other = list(row)
            for column, value in zip(columns, on, strict=True):
                other[column] = value
            sign = (-1) ** (len(columns) - sum(on))
            corner.append((places.get(tuple(other)), sign))
        if any(place is None for place, _ in corner):
            continue
        count += 1
        for place, sign in corner:
            weights[place] += sign
    return weights / max(count, 1), count


def draw_means(found: NDArray[np.bool_], draws: int = DRAWS, seed: int = 0) -> Floats:
    """Return bootstrap means of R@1, (D, S) in per cent; ``found`` is (S, Z, C)."""
    rng = np.random.default_rng(seed)
    settings, seeds, clips = found.shape
    means = np.empty((draws, settings))
    flat = found.reshape(settings * seeds, clips).astype(np.float32)
    for first in range(0, draws, BLOCK):
        size = min(BLOCK, draws - first)
        counts = rng.multinomial(clips, np.full(clips, 1 / clips), size=size)
        by_seed = (counts.astype(np.float32) @ flat.T / clips).reshape(size, settings, seeds)
        chosen = rng.integers(seeds, size=(size, settings, seeds))
        means[first : first + size] = np.take_along_axis(by_seed, chosen, axis=2).mean(axis=2)
    return 100 * means


def estimate(value: float, draws: Floats) -> Estimate:
    """Return a value with the middle 95 % of its draws (D,)."""
    low, high = np.percentile(draws, [2.5, 97.5])
    return Estimate(float(value), float(low), float(high))


def effects_of(
    terms: Sequence[str],
    present: NDArray[np.bool_],
    found: Mapping[str, NDArray[np.bool_]],
    valid: Mapping[str, NDArray[np.bool_]],
    draws: int = DRAWS,
) -> dict[str, list[Effect]]:
    """Estimate the effect of each term and of each pair on R@1 of each direction.

    Args:
        terms: names.
        present: (S, terms).
        found: for each direction (S, Z, C), whether a clip was found first.
        valid: for each direction (S,), whether a setting trains its modalities.
        draws: D.
    """
    columns = range(len(terms))
    asked = [*((c,) for c in columns), *itertools.combinations(columns, 2)]
    result: dict[str, list[Effect]] = {}
    for direction, hits in found.items():
        means, drawn = 100 * hits.mean(axis=(1, 2)), draw_means(hits, draws)
        result[direction] = []
        for chosen in asked:
            weights, count = contrasts(present, valid[direction], chosen)
            if count:
                names = tuple(terms[c] for c in chosen)
                value = estimate(weights @ means, drawn @ weights)
                result[direction].append(Effect(names, value, count))
    return result


def agreement(
    terms: Sequence[str],
    present: NDArray[np.bool_],
    found: Mapping[str, NDArray[np.bool_]],
    valid: Mapping[str, NDArray[np.bool_]],
) -> tuple[float, int, int] | None:
    """Compare the main effects that two halves of the seeds give.

    Returns their correlation over terms and directions, how many have the same sign, and how many
    there are; None: there is one seed, or too little to compare.
    """
    seeds = next(iter(found.values())).shape[1]
    if seeds < 2:
        return None
    halves = []
    for half in (slice(0, seeds // 2), slice(seeds // 2, None)):
        values = []
        for direction, hits in found.items():
            means = 100 * hits[:, half].mean(axis=(1, 2))
            for column in range(len(terms)):
                weights, count = contrasts(present, valid[direction], [column])
                values += [weights @ means] if count else []
        halves.append(np.array(values))
    first, second = halves
    if len(first) < 3 or not first.std() or not second.std():
        return None
    same = int((np.sign(first) == np.sign(second)).sum())
    return float(np.corrcoef(first, second)[0, 1]), same, len(first)


def pareto(cost: Floats, score: Floats) -> list[int]:
    """Return the places that no other beats in both: cheaper and as good, or as cheap and better.

    They come in the order of their cost.
    """
    best, front = -np.inf, []
    for place in np.lexsort((-score, cost)):
        if score[place] > best:
            front.append(int(place))
            best = score[place]
    return front
