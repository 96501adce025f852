"""What the report of question answering shows beside its table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from markupsafe import Markup
from numpy.typing import NDArray
from torch import nn

from fusion.data.datasets.dataset import collate
from fusion.evaluation.answers import METRICS, Answered
from fusion.report.answers import Example, confusion_chart, examples_section
from fusion.tasks.answering_result import confusion

BEST = 3  # answers that are shown
NOTE = (
    "Not picked by hand: one question in every {every} of the test. The second picture is dark"
    " where the question did not look: it shows the attention of its words to the image in the last"
    " block."
)


def report_sections(
    model: nn.Module, clips: Any, answered: Answered, number: int
) -> Mapping[str, Markup]:
    """Make the sections: examples, evenly chosen, and confusions."""
    total = len(answered.questions)
    places = np.linspace(0, total - 1, min(number, total)).round().astype(int).tolist()
    examples = [show_question(model, clips[place], answered, place) for place in places]
    note = NOTE.format(every=max(1, total // max(1, len(places))))
    return {
        "Some questions": examples_section(examples, note),
        "Which answers are confused": confusion_chart(*confusion(answered)),
    }


def show_question(
    model: nn.Module, clip: Mapping[str, Any], answered: Answered, place: int
) -> Example:
    """Show a question with its best answers, and where in the image they looked."""
    question, scores = answered.questions[place], answered.scores[place]
    best = best_answers(answered.answers, scores, BEST)
    accuracy = float(answered.metrics[METRICS[0]][place])
    image = look = None
    if "image" in clip and len(clip["image"]):
        image = clip["image"][0].movedim(0, -1).numpy()
        look = look_at(model, clip)
    return Example(question.text, question.answers, best, accuracy, image, look)


def best_answers(
    answers: Sequence[str], scores: torch.Tensor, number: int
) -> list[tuple[str, float]]:
    """Return the best answers of one question with their probabilities; ``scores`` is (K,)."""
    shares, places = scores.softmax(dim=0).topk(min(number, len(answers)))
    return [(answers[i], float(p)) for i, p in zip(places.tolist(), shares.tolist(), strict=True)]


def look_at(model: Any, clip: Mapping[str, Any]) -> NDArray[np.float32] | None:
    """Return where the question of a clip looked in its image, (h, w); None: it is not known."""
    device = next(model.parameters()).device
    weights = model.eval().look(collate([clip]).to(device).inputs)
    if weights is None:
        return None
    side = round(len(weights) ** 0.5)
    look: NDArray[np.float32] = weights.view(side, -1).float().cpu().numpy()
    return look / look.max()
