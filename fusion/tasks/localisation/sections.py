"""What the report of a localisation shows beside its table: the curves of some films."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup

from fusion.evaluation.localisation.settings import Settings
from fusion.evaluation.localisation.table import ORDERED, ScoredFilm, seconds_of_steps
from fusion.report.score_curves import CurveStep, curves_section

NOTE = (
    "Not picked by hand: films are sorted by the recall of this row, and a few are taken at even"
    " distances, from the best to the worst. A curve is the score of a step over time; the bar"
    " below it is when the step happens, and the mark is the second that it got."
)


def report_sections(
    films: Sequence[ScoredFilm], settings: Settings, lead: Sequence[str], folder: Path | None
) -> Mapping[str, Markup]:
    """Draw some films in the direction of the headline."""
    way = lead[0].removesuffix(f" {ORDERED}")
    found = [film.assigned(way, ORDERED, settings) for film in films]
    recalls = [
        float(np.mean([t >= 0 and f.mask[t, k] for k, t in enumerate(its) if f.mask[:, k].any()]))
        for f, its in zip(films, found, strict=True)
    ]
    order = np.argsort([-recall for recall in recalls], kind="stable")
    number = min(settings.films_in_report, len(films))
    places = np.linspace(0, len(films) - 1, number).round().astype(int)
    drawn = []
    for i in dict.fromkeys(order[places].tolist()):
        film = films[i]
        seconds = seconds_of_steps(film, found[i])
        steps = [
            CurveStep(
                text,
                film.scores[way][:, k],
                seconds[k],
                [(start, end) for step, start, end in film.intervals if step == k],
            )
            for k, text in enumerate(film.steps)
        ]
        drawn.append((f"{film.name}: recall {100 * recalls[i]:.0f} %", steps, film.grid))
    return {f"Some films: {way}, in order": curves_section(drawn, NOTE)}
