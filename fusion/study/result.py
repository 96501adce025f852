"""What the trainings of a study found: R@1 of each clip, by setting, seed and direction.

Shapes: S settings, Z seeds, C clips.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion.config import ConfigError
from fusion.evaluation.late_fusion import plain_name
from fusion.modalities import Direction
from fusion.report.comparison import Run
from fusion.report.layout import Layout
from fusion.report.runs import read_run
from fusion.study.effects import (
    Effect,
    Estimate,
    agreement,
    draw_means,
    effects_of,
    estimate,
    pareto,
)
from fusion.study.jobs import Job
from fusion.study.plan import Plan, Setting

MODALITIES = ("text", "video", "audio")


@dataclasses.dataclass(frozen=True)
class Study:
    """A finished study.

    Attributes:
        plan: what was trained.
        settings: (S,).
        found: for each direction (S, Z, C), whether a clip was found first.
        valid: for each direction (S,), whether a setting trains its modalities.
        seconds: (S,) training seconds, the mean over seeds; NaN where no run knows it.
        protocol: of the test.
        chance: R@1 of a random order, in per cent.
    """

    plan: Plan
    settings: Sequence[Setting]
    found: Mapping[str, NDArray[np.bool_]]
    valid: Mapping[str, NDArray[np.bool_]]
    seconds: NDArray[np.float64]
    protocol: str
    chance: float

    @property
    def present(self) -> NDArray[np.bool_]:
        """Which terms each setting trains, (S, terms)."""
        return np.array([[bool(w) for w in setting.weights] for setting in self.settings])

    @property
    def of_subsets(self) -> bool:
        """Whether terms are in or out, with the same weight."""
        return all(weight in (0, 1) for setting in self.settings for weight in setting.weights)

    def labels(self) -> list[str]:
        """Name the settings."""
        return [setting.label(self.plan.terms) for setting in self.settings]

    def table(self) -> dict[str, list[Estimate | None]]:
        """Return R@1 of each setting by direction; None: it does not train the direction."""
        rows: dict[str, list[Estimate | None]] = {}
        for direction, hits in self.found.items():
            means, drawn = 100 * hits.mean(axis=(1, 2)), draw_means(hits)
            rows[direction] = [
                estimate(means[i], drawn[:, i]) if self.valid[direction][i] else None
                for i in range(len(self.settings))
            ]
        return rows

    def effects(self) -> dict[str, list[Effect]]:
        """Return the effects of terms and pairs; none where weights are not 0 or 1."""
        if not self.of_subsets:
            return {}
        return effects_of(self.plan.terms, self.present, self.found, self.valid)

    def halves(self) -> tuple[float, int, int] | None:
        """Compare two halves of the seeds, see :func:`.effects.agreement`."""
        if not self.of_subsets:
            return None
        return agreement(self.plan.terms, self.present, self.found, self.valid)

    def front(self, direction: str) -> list[int]:
        """Return the settings that no other beats in training time and R@1 of a direction."""
        able = np.flatnonzero(self.valid[direction] & np.isfinite(self.seconds))
        score = self.found[direction].mean(axis=(1, 2))
        return [int(able[i]) for i in pareto(self.seconds[able], score[able])]


def direction_of(name: str) -> Direction:
    """Read ``t->v+a``."""
    query, gallery = name.split("->")
    return Direction(tuple(query.split("+")), tuple(gallery.split("+")))


def read_study(
    plan: Plan, settings: Sequence[Setting], jobs: Sequence[Job], complete: Any = dict
) -> Study:
    """Read what the trainings left; ``complete``: see :func:`fusion.report.runs.read_run`.

    Raises:
        ConfigError: a run is missing or damaged, or runs were tested on different clips.
    """
    runs = {(job.setting, job.seed): read_run(str(job.folder), None, complete) for job in jobs}
    first = next(iter(runs.values()))
    for run in runs.values():
        if run.test != first.test or run.result["protocol"] != first.result["protocol"]:
            raise ConfigError(f"{run.path} was tested on other clips than {first.path}")
    found, valid = {}, {}
    for name in (row for row in first.rows if row == plain_name(row)):  # tuned rows are left out
        hits = [[_found(runs[s, seed], name) for seed in plan.seeds] for s in settings]
        found[name] = np.array(hits)
        way = direction_of(name)
        valid[name] = np.array([s.covers(way, plan.terms, MODALITIES) for s in settings])
    seconds = [_mean_seconds([runs[s, seed] for seed in plan.seeds]) for s in settings]
    chance = first.result["chance"][Layout.of(first.result).main]
    protocol = str(first.result["protocol"])
    return Study(plan, settings, found, valid, np.array(seconds), protocol, float(chance))


def _found(run: Run, row: str) -> NDArray[np.bool_]:
    """Return which items were found first in a direction (C,); items that did not ask are missed.

    Each caption of a clip counts as one item.
    """
    scores = run.scores.get(row, {})
    return np.array([scores.get(name, 0.0) == 1 for name in run.ids])


def _mean_seconds(runs: Sequence[Run]) -> float:
    known = [s for run in runs if (s := run.cost.get("training_seconds")) is not None]
    return float(np.mean(known)) if known else float("nan")
