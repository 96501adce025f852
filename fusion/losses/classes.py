"""The loss of classification.

Shapes: B clips, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F

from fusion.interfaces import Loss, Named, Result


class ClassLoss(Loss):
    """Cross-entropy, a mean over clips; a clip that could not be read counts as 0.

    Args:
        modalities: names; they do not matter here.
        label_smoothing: the share of a target that is spread evenly over all classes (Szegedy et
            al., arXiv:1512.00567).

    Raises:
        ValueError: it is no share below 1.
    """

    compares_clips = False

    def __init__(self, modalities: Sequence[str], label_smoothing: float = 0.0) -> None:
        if not 0 <= label_smoothing < 1:
            raise ValueError(
                f"loss.label_smoothing must be from 0 to below 1; got {label_smoothing}"
            )
        self.label_smoothing = label_smoothing

    def __call__(self, outputs: Named, present: Named, /, *targets: Mapping[str, Any]) -> Result:
        """Compute the loss of (B, K) ``classes``, logits, for (B,) numbers of classes ``label``."""
        logits, labels = outputs["classes"].float(), targets[0]["label"]
        smooth = self.label_smoothing
        losses = F.cross_entropy(logits, labels, label_smoothing=smooth, reduction="none")  # (B,)
        for readable in present.values():
            losses = losses * readable
        return losses.mean(), {}
