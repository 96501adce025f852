"""The table of a localisation, from the scores of each film.

Shapes: T seconds of a film, K steps, F films.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion.evaluation.localisation.alignment import (
    Agreement,
    align,
    compare_segments,
    runs_of,
)
from fusion.evaluation.localisation.assignment import (
    NOWHERE,
    Scores,
    Seconds,
    assign_best,
    assign_in_order,
    label_seconds,
    log_softmax,
)
from fusion.evaluation.localisation.recall import (
    Floats,
    Mask,
    average_precision,
    chance_best,
    chance_in_order,
    mask_of,
    pooled_over_tasks,
    steps_found,
    weights_of,
)
from fusion.evaluation.localisation.settings import FRAMES, RECALL, Settings
from fusion.evaluation.metrics import interval_over

ORDERED, ARGMAX = "ordered", "argmax"


@dataclasses.dataclass(frozen=True)
class ScoredFilm:
    """A film with its scores.

    Attributes:
        name: of the film.
        steps: in their order.
        intervals: step, start and end in seconds.
        scores: by direction (T, K); not finite where nothing is known of a second.
        background: by direction (T,), the score of the background; None: the mean of the film's.
        grid: seconds from one window to the next.
        task: films of one task are averaged first.
    """

    name: str
    steps: tuple[str, ...]
    intervals: Sequence[tuple[int, float, float]]
    scores: Mapping[str, Scores]
    background: Mapping[str, Scores] | None = None
    grid: float = 1.0
    task: str = ""

    @functools.cached_property
    def mask(self) -> Mask:
        """(T, K): the seconds at which steps occur."""
        seconds = len(next(iter(self.scores.values())))
        return mask_of(self.intervals, seconds, len(self.steps), self.grid)

    @functools.cached_property
    def truth(self) -> NDArray[np.int64]:
        """(T,) the step of each second, K for the background; of several the one begun last."""
        labels = np.full(len(self.mask), len(self.steps))
        seconds, steps = self.mask.shape
        for interval in sorted(self.intervals, key=lambda one: (one[1], one[0])):
            labels[mask_of([interval], seconds, steps, self.grid).any(axis=1)] = interval[0]
        return labels

    def assigned(self, way: str, how: str, settings: Settings) -> Seconds:
        """Return the second of each step in a direction, (K,), ordered or by argmax."""
        scores = self.scores[way]
        if settings.rules.log_softmax:
            scores = log_softmax(scores, settings.scale)
        return assign_in_order(scores) if how == ORDERED else assign_best(scores)

    def aligned(self, way: str) -> Agreement:
        """Align the true sequence of steps and background, and compare."""
        sequence = [run.label for run in runs_of(self.truth)]
        scores = self.scores[way]
        known = scores[np.isfinite(scores).all(axis=1)]
        if self.background is not None:
            empty = self.background[way]
        else:
            empty = np.full(len(scores), known.mean() if known.size else 0.0)
        labels = align(np.column_stack([scores, empty]), sequence)
        return compare_segments(self.truth, labels, len(self.steps))


def directions_of(films: Sequence[ScoredFilm]) -> list[str]:
    """List the directions that films have scores of."""
    return [*films[0].scores] if films else []


def localisation_table(
    films: Sequence[ScoredFilm], settings: Settings
) -> tuple[dict[str, dict[str, Any]], dict[str, Floats]]:
    """Measure every direction.

    Args:
        films: those in which a step occurs.
        settings: the protocol.

    Returns:
        The rows, in per cent: a direction, and whether steps were assigned in order; and for each
        row (F,) values of films whose mean is the main metric, for intervals and comparisons. As
        the mean of the protocol has weights, a value may be above 1.
    """
    main = settings.rules.main
    table: dict[str, dict[str, Any]] = {}
    values: dict[str, Floats] = {}
    for way in directions_of(films):
        precision = mean_precision(films, way)
        shared = {} if precision is None else {"AP": 100 * precision}
        for how in (ORDERED,) if main == FRAMES else (ORDERED, ARGMAX):
            name = f"{way} {how}"
            row, values[name] = _recall_row(films, way, how, settings)
            if how == ARGMAX:
                row["any"] = _recall_of_labels(films, way)
            elif settings.rules.aligned:
                aligned = [film.aligned(way) for film in films]
                row |= agreement_row(aligned, _sizes(films))
                if main == FRAMES:
                    values[name] = np.array([a.frames for a in aligned]) * _share(_sizes(films))
            interval = {f"{main}_interval": interval_over(np.arange(len(films)), values[name])}
            table[name] = row | shared | interval | {"films": len(films)}
    return table, values


def _recall_row(
    films: Sequence[ScoredFilm], way: str, how: str, settings: Settings
) -> tuple[dict[str, Any], Floats]:
    tasks = [film.task for film in films]
    found = [steps_found(film.mask, film.assigned(way, how, settings)) for film in films]
    recalls = _weights(films) * np.array([flags.mean() for flags in found])
    row = {RECALL: 100 * float(recalls.mean()), "pooled": 100 * pooled_over_tasks(found, tasks)}
    return row, recalls


def _weights(films: Sequence[ScoredFilm]) -> Floats:
    """Return (F,) weights, 1 on average, so that plain means are those over tasks."""
    return len(films) * weights_of([film.task for film in films])


def _sizes(films: Sequence[ScoredFilm]) -> Floats:
    return np.array([len(film.mask) for film in films], np.float64)


def _share(sizes: Floats) -> Floats:
    return sizes * len(sizes) / sizes.sum()


def agreement_row(aligned: Sequence[Agreement], sizes: Floats) -> dict[str, float]:
    """Average the measures of aligned films: MoF over seconds, IoU and IoD over films."""
    frames = np.array([one.frames for one in aligned])
    row = {FRAMES: 100 * float((frames * sizes).sum() / sizes.sum())}
    for name, of in {"IoU": "iou", "IoD": "iod"}.items():
        known = [value for one in aligned if (value := getattr(one, of)) is not None]
        if known:
            row[name] = 100 * sum(known) / len(known)
    return row


def mean_precision(films: Sequence[ScoredFilm], way: str) -> float | None:
    """Average over tasks the average precision of their steps, over the seconds of all films.

    Films that are of no task are each by themselves, as their steps differ.
    """
    groups: dict[str, list[ScoredFilm]] = {}
    for film in films:
        groups.setdefault(film.task or f" {film.name}", []).append(film)
    found = []
    for its in groups.values():
        scores = np.concatenate([film.scores[way] for film in its])
        found.append(average_precision(scores, np.concatenate([film.mask for film in its])))
    known = [value for value in found if value is not None]
    return sum(known) / len(known) if known else None


def _recall_of_labels(films: Sequence[ScoredFilm], way: str) -> float:
    """Compute the recall of steps of which any second is right, see :func:`label_seconds`."""
    recalls = []
    for film in films:
        right = np.asarray((label_seconds(film.scores[way]) & film.mask).any(axis=0))
        recalls.append(right[film.mask.any(axis=0)].mean())
    return 100 * float((_weights(films) * np.array(recalls)).mean())


def guesses(films: Sequence[ScoredFilm], settings: Settings) -> dict[str, dict[str, float]]:
    """Compute what is reached without looking: seconds that are drawn, segments of equal length."""
    if settings.rules.main == FRAMES:
        return {"chance": agreement_row([equal_parts(film) for film in films], _sizes(films))}
    drawn = {}
    for key, chance in {"chance": chance_best, "chance_ordered": chance_in_order}.items():
        means = np.array([chance(film.mask).mean() for film in films])
        drawn[key] = {RECALL: 100 * float((_weights(films) * means).mean())}
    return drawn


def equal_parts(film: ScoredFilm) -> Agreement:
    """Compare a film that is cut into segments of equal length."""
    number, seconds = len(runs_of(film.truth)), len(film.truth)
    return compare_segments(film.truth, np.arange(seconds) * number // seconds, len(film.steps))


def seconds_of_steps(film: ScoredFilm, found: Seconds) -> list[float | None]:
    """Return the middle of the second of each step, in seconds; None if it has none."""
    return [None if t == NOWHERE else (t + 0.5) * film.grid for t in found.tolist()]
