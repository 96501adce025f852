"""Scores that look at more than one query: dual softmax and QB-Norm, for rows marked as such.

Both lift the figures of any model without making it better, because they know more than a search
does: dual softmax the other queries of the test and that pairs are one to one, QB-Norm how often a
candidate is near to queries of the training split. So they never stand among the plain rows.

Shapes: Q queries, M rows of the gallery, E embedding width.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from fusion.evaluation.embed import Embedded
from fusion.evaluation.metrics import Rescore, rows_at_a_time, similarity_blocks
from fusion.evaluation.retrieval import (
    Rescorer,
    has_any,
    rank_directions,
    retrieval_table,
    side_embeddings,
    side_rows,
)
from fusion.modalities import Direction

PAPERS = {"dual_softmax": "arXiv:2109.04290", "qb_norm": "arXiv:2112.12777"}


@dataclasses.dataclass(frozen=True)
class Rescoring:
    """Which rescored rows a table has beside the plain ones.

    Attributes:
        names: out of ``PAPERS``; none: plain rows alone.
        dual_softmax_scale: what cosines are multiplied by before the softmax over queries. The
            authors take a temperature of 1 on the logits of CLIP, which are cosines times 100.
        qb_norm_scale: the same in QB-Norm; 20 as published.
        qb_norm_bank: training clips that are embedded for the bank at most, at even distances.

    Raises:
        ValueError: a name is unknown or there twice, or a number is not positive.
    """

    names: tuple[str, ...] = ()
    dual_softmax_scale: float = 100.0
    qb_norm_scale: float = 20.0
    qb_norm_bank: int = 5000

    def __post_init__(self) -> None:
        for name in self.names:
            if name not in PAPERS:
                raise ValueError(
                    f"evaluation.rescoring: unknown {name!r}; choose from {', '.join(PAPERS)}"
                )
        if len(set(self.names)) < len(self.names):
            raise ValueError(
                f"evaluation.rescoring names one twice: {', '.join(self.names)}; leave one out"
            )
        for name in ("dual_softmax_scale", "qb_norm_scale", "qb_norm_bank"):
            if not getattr(self, name) > 0:
                raise ValueError(
                    f"evaluation.{name} must be more than 0; got {getattr(self, name)}"
                )

    @property
    def needs_bank(self) -> bool:
        """Whether clips of the training split must be embedded."""
        return "qb_norm" in self.names


def dual_softmax(
    queries: Tensor, gallery: Tensor, scale: float, block: int | None = None
) -> Rescore:
    """Weigh each similarity with how much its candidate prefers this query to all others.

    The score is s * softmax(scale * s) with the softmax over all queries, as in CAMoE
    (arXiv:2109.04290). Its sums are computed block by block here, so memory stays block x M.

    Args:
        queries: (Q, E), all of the test.
        gallery: (M, E).
        scale: see :class:`Rescoring`.
        block: queries at a time; about 2**24 similarities if not given.

    Returns:
        What maps similarities to scores in float64, in which small weights do not become ties.
    """
    sums = _log_sums(queries, gallery, scale, block)

    def rescore(similarities: Tensor) -> Tensor:
        exact = similarities.double()
        return exact * (scale * exact - sums).exp()

    return rescore


def qb_norm(bank: Tensor, gallery: Tensor, scale: float, block: int | None = None) -> Rescore:
    """Divide by how near a candidate is to the queries of a bank, where hubs would win.

    The dynamic inverted softmax of QB-Norm (arXiv:2112.12777) with k = 1: a query whose best
    candidate is also the best of any query in the bank gets exp(scale * s) / sum over the bank of
    exp(scale * s), of which the logarithm is taken here; the others keep their similarities.

    Args:
        bank: (B, E) queries of the training split.
        gallery: (M, E).
        scale: see :class:`Rescoring`.
        block: queries at a time; about 2**24 similarities if not given.

    Returns:
        What maps similarities to scores in float64.
    """
    sums = _log_sums(bank, gallery, scale, block)
    is_hub = torch.zeros(len(gallery), dtype=torch.bool)
    for _, similarities in similarity_blocks(bank, gallery, block or rows_at_a_time(len(gallery))):
        is_hub[similarities.argmax(dim=1)] = True

    def rescore(similarities: Tensor) -> Tensor:
        exact = similarities.double()
        inverted = scale * exact - sums
        return torch.where(is_hub[similarities.argmax(dim=1)][:, None], inverted, exact)

    return rescore


def rescored_tables(
    embedded: Embedded,
    settings: Rescoring,
    bank: Embedded | None,
    num_clips: int,
    captions: Tensor | None,
) -> dict[str, dict[str, Any]]:
    """Rank every direction with each way of rescoring.

    Args:
        embedded: the clips in the gallery.
        settings: which ways.
        bank: clips of the training split; QB-Norm needs them. A direction for which none of them
            has what asks is left out.
        num_clips: see :func:`fusion.evaluation.retrieval.retrieval_table`.
        captions: see there.

    Returns:
        For each way its ``paper``, what it ``assumes``, its ``settings`` and its ``directions``,
        without intervals: with one query more or less the scores of the others would be others.
    """
    tables, embedded = {}, embedded.by_cosine()
    bank = None if bank is None else bank.by_cosine()
    for name in settings.names:
        ranked = rank_directions(embedded, rescorer=_rescorer(name, settings, bank))
        tables[name] = {
            "paper": PAPERS[name],
            "assumes": _assumption(name, captions, bank),
            "settings": {"scale": getattr(settings, f"{name}_scale")},
            "directions": retrieval_table(ranked, num_clips, captions, intervals=False),
        }
    return tables


def _rescorer(name: str, settings: Rescoring, bank: Embedded | None) -> Rescorer:
    def rescorer(direction: Direction, queries: Tensor, gallery: Tensor) -> Rescore | None:
        if name == "dual_softmax":
            return dual_softmax(queries, gallery, settings.dual_softmax_scale)
        assert bank is not None
        rows = side_rows(bank, direction.query, has_any(bank, direction.query))
        if not len(rows):
            return None
        known = side_embeddings(bank, direction.query, rows)
        return qb_norm(known, gallery, settings.qb_norm_scale)

    return rescorer


def _assumption(name: str, captions: Tensor | None, bank: Embedded | None) -> str:
    if name == "dual_softmax":
        text = "sees all test queries at once and assumes that each clip belongs to exactly one"
        if captions is None:
            return f"{text} of them"
        return f"{text} of them, which is not so here: clips have several captions"
    assert bank is not None
    return (
        f"sees {len(bank.ids)} queries of the training split, at even distances, and assumes that"
        " those of the test are of the same kind"
    )


def _log_sums(queries: Tensor, gallery: Tensor, scale: float, block: int | None) -> Tensor:
    """Sum exp(scale * s) over the queries, for each candidate, as a logarithm: (M,) float64."""
    sums = torch.full((len(gallery),), -torch.inf, dtype=torch.float64)
    block = block or rows_at_a_time(len(gallery))
    for _, similarities in similarity_blocks(queries, gallery, block):
        sums = torch.logaddexp(sums, (scale * similarities.double()).logsumexp(dim=0))
    return sums
