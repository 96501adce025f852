"""How many films were classified rightly: of all, of each class, of pairs of classes.

Shapes: N films, K classes.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fusion.config import ConfigError
from fusion.evaluation.metrics import interval_over

TOP = 5
ALL, BY_PAIR, BY_CLASS = "all", "pair: ", "class: "
METRICS = ("top1", "top5", "mean_class")
PAIR_METRICS = ("pair", "order")


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to classify films in evaluation; the ``evaluation`` section of a config.

    Attributes:
        batch_size: films classified at a time by one process; it only changes the speed.
        clips: of each film, evenly placed; their scores are averaged.
        crops: of each frame: 1, its middle; or 3, along its longer side.
        films_in_report: how many films the report shows.

    Raises:
        ConfigError: a number is out of its range.
    """

    batch_size: int = 32
    clips: int = 1
    crops: int = 1
    films_in_report: int = 16

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, least in {"batch_size": 1, "clips": 1, "films_in_report": 0}.items():
            if (number := getattr(self, name)) < least:
                raise ConfigError(f"evaluation.{name} must be at least {least}; got {number}")
        if self.crops not in (1, 3):
            raise ConfigError(f"evaluation.crops must be 1 or 3; got {self.crops}")


@dataclasses.dataclass(frozen=True)
class Classified:
    """Films and the scores of their classes.

    Attributes:
        ids: names of the films.
        files: the file of each; films of one file are drawn together for intervals.
        labels: (N,) int64, the number of the right class.
        scores: (N, K) logits.
        readable: (N,) bool; a film that could not be read is never right.
        classes: their names.
        pairs: the two classes of each pair, by its name; empty if there are none.
    """

    ids: Sequence[str]
    files: Sequence[str]
    labels: NDArray[np.int64]
    scores: Tensor
    readable: NDArray[np.bool_]
    classes: Sequence[str]
    pairs: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def best(self) -> NDArray[np.int64]:
        """(N, TOP) the classes with the highest scores, best first."""
        places: NDArray[np.int64] = self.scores.topk(min(TOP, len(self.classes)), dim=1)[1].numpy()
        return places

    @functools.cached_property
    def metrics(self) -> dict[str, NDArray[np.float64]]:
        """Of each film, (N,), 0 or 1: ``top1``, ``top5``; with pairs also ``pair`` and ``order``.

        ``pair``: the class with the highest score is in the right pair. ``order``: of the two
        classes of the right pair, the right one has the higher score.
        """
        hits = (self.best == self.labels[:, None]) & self.readable[:, None]
        found = {"top1": hits[:, 0], "top5": hits.any(axis=1)}
        if self.pairs:
            other = self._partners
            scores, rows = self.scores.numpy(), np.arange(len(self.labels))
            own = scores[rows, self.labels]
            chosen = self.best[:, 0]
            in_pair = (chosen == self.labels) | (chosen == other[self.labels])
            found["pair"] = in_pair & self.readable
            found["order"] = (own > scores[rows, other[self.labels]]) & self.readable
        return {name: values.astype(np.float64) for name, values in found.items()}

    @functools.cached_property
    def rows(self) -> dict[str, NDArray[np.int64]]:
        """The films of each row of a table: all, of each pair, of each class."""
        rows = {ALL: np.arange(len(self.labels))}
        for name, pair in self.pairs.items():
            numbers = [self.classes.index(one) for one in pair]
            rows[BY_PAIR + name] = np.flatnonzero(np.isin(self.labels, numbers))
        for number, name in enumerate(self.classes):
            rows[BY_CLASS + name] = np.flatnonzero(self.labels == number)
        return {name: places for name, places in rows.items() if len(places)}

    @property
    def _partners(self) -> NDArray[np.int64]:
        """(K,) the other class of the pair of each class."""
        partners = np.arange(len(self.classes))
        for pair in self.pairs.values():
            first, second = (self.classes.index(name) for name in pair)
            partners[[first, second]] = second, first
        return partners


def class_table(found: Classified, intervals: bool = True) -> dict[str, dict[str, Any]]:
    """Average the metrics in each row, in per cent, with 95 % intervals over files.

    ``mean_class`` is the mean of ``top1`` over the classes.
    """
    files = np.unique(np.asarray(found.files), return_inverse=True)[1].reshape(-1)
    table: dict[str, dict[str, Any]] = {}
    for row, places in found.rows.items():
        means = {name: 100 * float(values[places].mean()) for name, values in found.metrics.items()}
        right, labels = found.metrics["top1"][places], found.labels[places]
        means["mean_class"] = 100 * float(
            np.mean([right[labels == number].mean() for number in np.unique(labels)])
        )
        line: dict[str, Any] = {**means, "films": len(places)}
        if intervals:
            line["top1_interval"] = interval_over(files[places], right)
        table[row] = line
    return table


def confusion(found: Classified, most: int = 20) -> tuple[Sequence[str], Sequence[str], Any]:
    """Count which class was chosen where which is right.

    Only the ``most`` most frequent classes have a row. Returns the names of the rows (right) and
    columns (chosen), which end with all others if there are more, and the counts.
    """
    counts = np.bincount(found.labels, minlength=len(found.classes))
    shown = np.sort(np.argsort(-counts, kind="stable")[:most])
    rows = [found.classes[number] for number in shown]
    columns = [*rows, *(["others"] if len(rows) < len(found.classes) else [])]
    place = np.full(len(found.classes), len(rows))
    place[shown] = np.arange(len(rows))
    table = np.zeros((len(rows), len(rows) + 1), dtype=np.int64)
    kept = place[found.labels] < len(rows)
    np.add.at(table, (place[found.labels][kept], place[found.best[:, 0]][kept]), 1)
    return rows, columns, table[:, : len(columns)]
