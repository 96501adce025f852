"""What the report of classification shows beside its table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from markupsafe import Markup

from fusion.data.datasets.dataset import collate
from fusion.evaluation.classes import Classified, confusion
from fusion.report.answers import confusion_chart
from fusion.report.films import FilmStrip, strips_section

NOTE = (
    "Not picked by hand: {chosen} of the split{wrong}. Below each frame is the probability of each"
    " class after the frames up to it, in the colours of the names; {causal}"
)
CAUSAL = "this network is causal, so it says so as soon as it has seen the frame."
LOOKS_AHEAD = "this network sees also the frames after it."
CURVES = 4  # classes whose probabilities are drawn


def report_sections(model: Any, clips: Any, found: Classified, number: int) -> Mapping[str, Markup]:
    """Make the sections: film strips, evenly chosen and of mistakes, and confusions."""
    chart = confusion_chart(*confusion(found), asked_as="right class", given_as="chosen class")
    sections = {"Which classes are confused": chart}
    if not number:
        return sections
    total = len(found.ids)
    places = np.linspace(0, total - 1, min(number, total)).round().astype(int).tolist()
    wrong = np.flatnonzero((found.metrics["top1"] == 0) & found.readable).tolist()
    mistakes = [place for place in wrong if place not in places][: max(1, number // 4)]
    strips = [show_film(model, clips[place], found, place) for place in [*places, *mistakes]]
    note = NOTE.format(
        chosen="all films" if len(places) == total else f"{len(places)}, evenly chosen,",
        wrong=f", and {len(mistakes)} more that were classified wrongly" if mistakes else "",
        causal=CAUSAL if model.tsm.causal else LOOKS_AHEAD,
    )
    return {"Some films": strips_section(strips, note)} | sections


def show_film(model: Any, clip: Mapping[str, Any], found: Classified, place: int) -> FilmStrip:
    """Show the frames of a film, and the probabilities of classes over time."""
    frames = clip["video"]
    right, chosen = int(found.labels[place]), int(found.best[place, 0])
    probabilities = np.zeros((0, len(found.classes)))
    if len(frames):
        device = next(model.parameters()).device
        model.eval()
        with torch.no_grad():
            scores = model.over_time(collate([clip]).to(device).inputs)[0]
        probabilities = scores.float().softmax(dim=-1).cpu().numpy()
    shown = [right, *(n for n in found.best[place].tolist() if n != right)][:CURVES]
    return FilmStrip(
        found.ids[place],
        found.classes[right],
        found.classes[chosen],
        frames.movedim(1, -1).numpy(),
        {found.classes[n]: probabilities[:, n].tolist() for n in shown},
    )
