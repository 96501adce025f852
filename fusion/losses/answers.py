"""The loss of question answering: several answers may be right, each to a degree.

Shapes: B questions, K answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from fusion.interfaces import Loss, Named, Result

KINDS = ("sigmoid", "softmax")


class AnswerLoss(Loss):
    """Cross-entropy between the scores of a model and those of people, a mean over questions.

    A question none of whose answers is among the K counts as 0 with ``softmax``; with ``sigmoid``
    all K answers are wrong for it.

    Args:
        modalities: names; they do not matter here.
        kind: ``sigmoid``, the binary cross-entropy of each answer, summed over the answers (Teney
            et al., arXiv:1708.02711); or ``softmax``, the cross-entropy with the scores of people
            divided by their sum.

    Raises:
        ValueError: the kind is unknown.
    """

    compares_clips = False

    def __init__(self, modalities: Sequence[str], kind: str = "softmax") -> None:
        if kind not in KINDS:
            raise ValueError(f"loss.kind: unknown {kind!r}; choose from {', '.join(KINDS)}")
        self.kind = kind

    def __call__(self, outputs: Named, present: Named, /, *targets: Mapping[str, Any]) -> Result:
        """Compute the loss of (B, K) ``answers`` for (B, K) ``scores`` from 0 to 1."""
        logits, scores = outputs["answers"].float(), targets[0]["scores"]
        if self.kind == "sigmoid":
            losses = F.binary_cross_entropy_with_logits(logits, scores, reduction="none").sum(dim=1)
        else:
            total = scores.sum(dim=1, keepdim=True)
            shares = scores / total.clamp(min=torch.finfo(scores.dtype).tiny)
            losses = -(shares * logits.log_softmax(dim=1)).sum(dim=1)
        return losses.mean(), {}
