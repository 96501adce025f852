"""The combinatorial loss: a weighted mean of contrastive terms, each over the clips it can use."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fusion.losses.nce import LARGEST_MARGIN, LOWEST_TEMPERATURE, contrast
from fusion.modalities import members, parse_term

CONTRASTIVE = ("nce", "mms")


class CombinatorialLoss:
    """Weighted mean of contrastive losses between pairs of combinations (EAO, arXiv:2112.04446).

    A clip that lacks a modality is left out of every term that needs it. A term that no clip of the
    batch can serve is left out of the sum and of the sum of weights.

    Args:
        modalities: names of the modalities, in the model's order.
        terms: weight of each term, ``{"t|v": 1.0, "t|va": 0.1}``; the paper's recipe has six. A
            weight of 0 leaves the term out.
        contrastive: ``nce`` or ``mms``, see :mod:`fusion.losses.nce`.
        temperature: of ``nce``; ``mms`` has none.
        margin: of ``mms``; ``nce`` has none.

    Attributes:
        combinations: every combination that a term needs.
        compares_clips: the loss of a clip depends on the others of its batch.

    Raises:
        ValueError: a term or the kind of loss is unknown, or no term has a weight.
    """

    compares_clips = True

    def __init__(
        self,
        modalities: Sequence[str],
        terms: Mapping[str, float],
        contrastive: str = "nce",
        temperature: float = 0.05,
        margin: float = 0.001,
    ) -> None:
        if contrastive not in CONTRASTIVE:
            raise ValueError(
                f"unknown contrastive loss {contrastive!r}; choose from {', '.join(CONTRASTIVE)}"
            )
        for term, weight in terms.items():
            if not weight >= 0:
                raise ValueError(f"the weight of term {term!r} must be at least 0; got {weight}")
        self.weights = {term: float(weight) for term, weight in terms.items() if weight}
        if not self.weights:
            problem = "has no term with a weight above 0" if terms else "is empty"
            raise ValueError(f"loss.terms {problem}; name at least one, such as t|v: 1.0")
        self.pairs = {term: parse_term(term, modalities) for term in self.weights}
        self.needs = {
            term: members(left + right, modalities) for term, (left, right) in self.pairs.items()
        }
        self.combinations = sorted({c for pair in self.pairs.values() for c in pair})
        if contrastive == "nce" and not temperature >= LOWEST_TEMPERATURE:
            raise ValueError(
                f"loss.temperature must be at least {LOWEST_TEMPERATURE}; got {temperature}"
            )
        if contrastive == "mms" and not abs(margin) <= LARGEST_MARGIN:
            raise ValueError(
                f"loss.margin must be between -{LARGEST_MARGIN} and {LARGEST_MARGIN}; got {margin}"
            )
        self.setting = {"temperature": temperature} if contrastive == "nce" else {"margin": margin}
        self.scale = 1 / temperature if contrastive == "nce" else 1.0

    def __call__(
        self,
        embeddings: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
        counts: Sequence[int] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of a whole batch, of which every rank gives its clips.

        Args:
            embeddings: for each combination (b, E).
            present: for each modality (b,) bool, which clips have it.
            counts: clips of each rank; as many as here if not given.

        Returns:
            The loss, a scalar, 0 if no clip can serve any term; and the value of each term, NaN for
            one that no clip could serve.
        """
        complete = torch.stack(
            [torch.stack([present[m] for m in needs]).all(dim=0) for needs in self.needs.values()]
        )  # (terms, b)
        places = {c: place for place, c in enumerate(self.combinations)}
        values, clips = contrast(
            [embeddings[c] for c in self.combinations],
            [(places[left], places[right]) for left, right in self.pairs.values()],
            self.scale,
            self.setting.get("margin", 0.0),
            complete,
            counts=counts,
        )
        # Which terms count is not looked at here: a GPU would have to finish its work first.
        served = (clips > 0).to(values.dtype).unbind()
        weights = torch.stack([w * s for w, s in zip(self.weights.values(), served, strict=True)])
        loss = (weights * values).sum() / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)
        reported = values.detach().masked_fill(clips == 0, math.nan)
        return loss, dict(zip(self.weights, reported, strict=True))
