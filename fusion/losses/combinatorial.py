"""The combinatorial loss: a weighted mean of contrastive terms, each over the clips it can use."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from fusion.interfaces import Loss, Named, Result
from fusion.losses.contrastive import check_range, contrast
from fusion.modalities import members, parse_term

CONTRASTIVE = ("nce", "mms", "mms_dot")
LARGEST_WEIGHT = 1e6  # of a part of a loss: above, gradients soon overflow


def check_weight(name: str, weight: float) -> None:
    """Raise ValueError if the weight of a part of a loss is no sensible number."""
    if not 0 <= weight <= LARGEST_WEIGHT:
        most = f" and at most {LARGEST_WEIGHT:g}" if weight > 0 else ""
        raise ValueError(f"{name} must be at least 0{most}; got {weight}")


class CombinatorialLoss(Loss):
    """Weighted mean of contrastive losses between pairs of combinations (EAO, arXiv:2112.04446).

    A clip that lacks a modality is left out of every term that needs it, see ``keep_incomplete``; a
    term without any clip in the batch is left out of the mean.

    Args:
        modalities: names of the modalities, in the model's order.
        terms: weight of each term, ``{"t|v": 1.0, "t|va": 0.1}``; the paper's recipe has six. A
            weight of 0 leaves the term out.
        contrastive: ``nce``, ``mms`` (of cosines) or ``mms_dot`` (of dot products).
        temperature: of ``nce``; the others have none.
        margin: of ``mms`` and ``mms_dot``; ``nce`` has none.
        presence: ``{a: b}`` counts modality a as present where b is. The published numbers of
            AVLnet and MCN need ``{text: video, audio: video}``: the sound of a silent clip counts
            as silence. By default such a clip is left out of the terms that need sound.
        keep_incomplete: keep a clip in a term if it has any modality on both sides, so that EAO
            learns its masking token. As published, a clip that lacks one is left out of the term,
            and the token gets no gradient.

    Raises:
        ValueError: a term or the kind of loss is unknown, or no term has a weight.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        terms: Mapping[str, float],
        contrastive: str = "nce",
        temperature: float = 0.05,
        margin: float = 0.001,
        presence: Mapping[str, str] | None = None,
        keep_incomplete: bool = False,
    ) -> None:
        if contrastive not in CONTRASTIVE:
            raise ValueError(
                f"unknown contrastive loss {contrastive!r}; choose from {', '.join(CONTRASTIVE)}"
            )
        for term, weight in terms.items():
            check_weight(f"the weight of term {term!r}", weight)
        self.weights = {term: float(weight) for term, weight in terms.items() if weight}
        if not self.weights:
            problem = "has no term with a weight above 0" if terms else "is empty"
            raise ValueError(f"loss.terms {problem}; name at least one, such as t|v: 1.0")
        self.modalities = list(modalities)
        self.pairs = {term: parse_term(term, modalities) for term in self.weights}
        self.sides = {
            term: [members(side, modalities) for side in pair] for term, pair in self.pairs.items()
        }
        self.keep_incomplete = keep_incomplete
        self.combinations = sorted({c for pair in self.pairs.values() for c in pair})
        check_range(temperature, margin)
        self.presence = dict(presence or {})
        if unknown := {*self.presence, *self.presence.values()} - set(modalities):
            raise ValueError(
                f"loss.presence: unknown modality {min(unknown)!r}; choose from"
                f" {', '.join(modalities)}"
            )
        self.contrastive, self.temperature, self.margin = contrastive, temperature, margin

    def __call__(
        self, embeddings: Named, present: Named | None = None, /, *targets: object
    ) -> Result:
        """Compute the loss, see :meth:`.Loss.__call__`, from (b, E) for each combination.

        Without ``present`` every clip has every modality. The loss is 0 if no term has a clip. The
        value of a term without clips is NaN.
        """

        def coefficients(clips: Tensor) -> Tensor:
            # On the device: reading back which terms count would force a synchronisation.
            served = (clips > 0).to(clips.dtype).unbind()
            each = [w * s for w, s in zip(self.weights.values(), served, strict=True)]
            factors = torch.stack(each)
            return factors / factors.sum().clamp(min=torch.finfo(factors.dtype).tiny)

        return self.compare(embeddings, present, coefficients)

    def shown(self, embeddings: Named, present: Named | None) -> dict[str, Tensor]:
        """Return which clips count as having each modality: (b,) bool, see ``presence``."""
        if not present:
            rows = next(iter(embeddings.values()))
            everywhere = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
            return dict.fromkeys(self.modalities, everywhere)
        return {m: present[self.presence.get(m, m)] for m in present}

    def _counts(self, sides: Sequence[Sequence[str]], shown: Named) -> Tensor:
        """Return which clips count in the term of two sides: (b,) bool."""
        flags = [torch.stack([shown[m] for m in names]) for names in sides]
        of_sides = [f.any(dim=0) if self.keep_incomplete else f.all(dim=0) for f in flags]
        return torch.stack(of_sides).all(dim=0)

    def compare(
        self,
        embeddings: Named,
        present: Named | None,
        coefficients: Callable[[Tensor], Tensor] = torch.ones_like,
    ) -> Result:
        """Compute the sum of the terms times coefficients, see :func:`.contrast`, and a report."""
        if lacking := [c for c in self.combinations if c not in embeddings]:
            raise ValueError(
                f"the loss needs embeddings of {', '.join(self.combinations)}; the model gave"
                f" {', '.join(embeddings)}, without {lacking[0]!r}"
            )
        shown = self.shown(embeddings, present)
        complete = torch.stack([self._counts(sides, shown) for sides in self.sides.values()])
        places = {c: place for place, c in enumerate(self.combinations)}
        sides = [embeddings[c] for c in self.combinations]
        pairs = [(places[left], places[right]) for left, right in self.pairs.values()]
        is_nce = self.contrastive == "nce"
        scale, margin = (1 / self.temperature, 0.0) if is_nce else (1.0, self.margin)
        normalize = self.contrastive != "mms_dot"
        value, values, clips = contrast(
            sides, pairs, scale, margin, complete, None, normalize, coefficients
        )
        reported = values.masked_fill(clips == 0, math.nan)
        return value, dict(zip(self.weights, reported, strict=True))
