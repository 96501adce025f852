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
from fusion.data.questions.balance import Balance, count_answers
from fusion.data.questions.normalisation import soft_scores
from fusion.evaluation.answers import METRICS, Answered
from fusion.report.answers import Example, confusion_chart, examples_section
from fusion.report.layout import number as written
from fusion.report.page import render
from fusion.tasks.question_answering.result import confusion

BEST = 3  # answers that are shown
FREQUENT, RARE = 10, 5  # answers in the table of all
HEAD = ("answer", "training questions", "per cent", "test questions", "right of these, per cent")
NOTE = (
    "Not picked by hand: one question in every {every} of the test. The second picture is dark"
    " where the question did not look: it shows the attention of its words to the image in the last"
    " block."
)


def report_sections(
    model: nn.Module, clips: Any, answered: Answered, number: int, balance: Balance | None
) -> Mapping[str, Markup]:
    """Make the sections: examples, evenly chosen, confusions, and how frequent answers are."""
    total = len(answered.questions)
    places = np.linspace(0, total - 1, min(number, total)).round().astype(int).tolist()
    examples = [show_question(model, clips[place], answered, place) for place in places]
    note = NOTE.format(every=max(1, total // max(1, len(places))))
    return {
        "Some questions": examples_section(examples, note),
        "Which answers are confused": confusion_chart(*confusion(answered)),
        "How frequent answers are": balance_section(answered, balance),
    }


def balance_section(answered: Answered, balance: Balance | None) -> Markup:
    """Show the most and the least frequent answers of the training; None: it is not known."""
    if balance is None:
        return Markup()
    asked: dict[str, list[float]] = {}
    for question, accuracy in zip(
        answered.questions, answered.metrics[METRICS[0]].tolist(), strict=True
    ):
        asked.setdefault(next(iter(soft_scores(question.answers)), ""), []).append(accuracy)
    rows = []
    for answer, count in balance.counts.items():
        found = asked.get(answer, [])
        right = written(100 * sum(found) / len(found)) if found else "-"
        share = f"{balance.share(answer):.1f}"
        rows.append([answer, f"{count:,}", share, f"{len(found):,}", right])
    groups = [("most frequent in training", rows[:FREQUENT])]
    groups += [("least frequent", rows[FREQUENT:][-RARE:])]
    named = {*balance.counts, ""}
    beyond = sum(len(found) for answer, found in asked.items() if answer not in named)
    notes = [f"Training: {balance.describe()}."]
    notes += [
        f"Test: {beyond:,} of {len(answered.questions):,} questions have another answer, which the"
        " model cannot give."
    ] * bool(beyond)
    return render("methods.html", head=HEAD, groups=groups, notes=notes)


def count_training(source: Any, answers: Sequence[str]) -> Balance | None:
    """Count the answers of the training split of a data set; None: it has none."""
    return count_answers(source.questions("train"), answers) if "train" in source.splits else None


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
    if not hasattr(model, "look"):  # it was trained for another task
        return None
    device = next(model.parameters()).device
    weights = model.eval().look(collate([clip]).to(device).inputs)
    if weights is None:
        return None
    side = round(len(weights) ** 0.5)
    look: NDArray[np.float32] = weights.view(side, -1).float().cpu().numpy()
    return look / look.max()
