"""Scores that use more than one query: dual softmax and QB-Norm.

Both use information that a real search lacks: dual softmax the other queries of the test, QB-Norm
queries of the training split. So they are reported apart from the plain rows.

Cosines tie within the tolerance of :mod:`fusion.evaluation.ranking`. Scores tie within the
tolerance times the derivative of the score.

Shapes: Q queries, M rows of the gallery, E embedding width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fusion.evaluation import retrieval
from fusion.evaluation.embed import Embedded
from fusion.evaluation.ranking import TOLERANCE, Rescore, cosine_blocks
from fusion.evaluation.settings import PAPERS, Settings
from fusion.modalities import Direction


def dual_softmax(
    queries: Tensor, gallery: Tensor, scale: float, block: int | None = None
) -> Rescore:
    """Multiply each cosine s by softmax(scale * s) over all queries: CAMoE (arXiv:2109.04290).

    If all cosines move by at most t, a score moves by at most (1 + 2 * scale * |s|) * t times the
    softmax.

    Args:
        queries: (Q, E), all of the test.
        gallery: (M, E).
        scale: factor of the cosines.
        block: queries at a time; memory is block x M.
    """
    sums, _ = _sums_and_hubs(queries, gallery, scale, block)

    def rescore(cosines: Tensor) -> tuple[Tensor, Tensor]:
        weights = (scale * cosines - sums).exp()
        return cosines * weights, TOLERANCE * weights * (1 + 2 * scale * cosines.abs())

    return rescore


def qb_norm(bank: Tensor, gallery: Tensor, scale: float, block: int | None = None) -> Rescore:
    """Apply the dynamic inverted softmax of QB-Norm (arXiv:2112.12777) with k = 1.

    A candidate is a hub if it is the best of any query in the bank. A query whose best candidate is
    a hub gets the scores exp(scale * s) / sum over the bank of exp(scale * s), here their
    logarithm; if all cosines move by at most t, it moves by at most 2 * scale * t. Other queries
    keep their cosines. Candidates that tie for the best are all the best.

    Args:
        bank: (B, E) queries of the training split.
        gallery: (M, E).
        scale: factor of the cosines.
        block: queries at a time; memory is block x M.
    """
    sums, is_hub = _sums_and_hubs(bank, gallery, scale, block)

    def rescore(cosines: Tensor) -> tuple[Tensor, Tensor]:
        inverted = (_is_best(cosines) & is_hub).any(dim=1, keepdim=True)
        scores = torch.where(inverted, scale * cosines - sums, cosines)
        return scores, TOLERANCE * torch.where(inverted, 2 * scale, 1.0).double()

    return rescore


def rescored_tables(
    embedded: Embedded,
    settings: Settings,
    bank: Embedded | None,
    num_clips: int,
    captions: Tensor | None,
) -> dict[str, dict[str, Any]]:
    """Rank every direction of the clips in the gallery with each way of rescoring.

    QB-Norm needs a ``bank`` of training clips; it leaves out a direction for which no clip of the
    bank has the modalities of the query. Other arguments are those of ``retrieval_table``.

    Returns:
        For each way its ``paper``, what it ``assumes``, its ``settings`` and its ``directions``,
        without intervals: the scores of a query depend on the other queries.
    """
    embedded, bank = embedded.by_cosine(), bank and bank.by_cosine()
    several = "" if captions is None else ", which is not so here: clips have several captions"
    assumes = {
        "dual_softmax": "sees all test queries at once and assumes that each clip belongs to"
        f" exactly one of them{several}",
        "qb_norm": f"sees {len(bank.ids) if bank else 0} queries of the training split, at even"
        " distances, and assumes that those of the test are of the same kind",
    }
    tables = {}
    for name in settings.rescoring or ():
        ranked = retrieval.rank_directions(embedded, rescorer=_rescorer(name, settings, bank))
        tables[name] = {
            "paper": PAPERS[name],
            "assumes": assumes[name],
            "settings": {"scale": getattr(settings, f"{name}_scale")},
            "directions": retrieval.retrieval_table(ranked, num_clips, captions, intervals=False),
        }
    return tables


def _rescorer(name: str, settings: Settings, bank: Embedded | None) -> retrieval.Rescorer:
    def rescorer(direction: Direction, queries: Tensor, gallery: Tensor) -> Rescore | None:
        if name == "dual_softmax":
            return dual_softmax(queries, gallery, settings.dual_softmax_scale)
        assert bank is not None
        rows = retrieval.side_rows(bank, direction.query, retrieval.has_any(bank, direction.query))
        known = retrieval.side_embeddings(bank, direction.query, rows)
        return qb_norm(known, gallery, settings.qb_norm_scale) if len(rows) else None

    return rescorer


def _sums_and_hubs(
    queries: Tensor, gallery: Tensor, scale: float, block: int | None
) -> tuple[Tensor, Tensor]:
    """Return log sum exp(scale * s) over queries, (M,) float64, and the hubs, (M,) bool."""
    sums = torch.full((len(gallery),), -torch.inf, dtype=torch.float64)
    is_hub = torch.zeros(len(gallery), dtype=torch.bool)
    for cosines in cosine_blocks(queries, gallery, block):
        is_hub |= _is_best(cosines).any(dim=0)
        sums = torch.logaddexp(sums, cosines.mul_(scale).logsumexp(dim=0))
    return sums, is_hub


def _is_best(cosines: Tensor) -> Tensor:
    """Return which candidates are the best of each query, or tie with it: (block, M) bool."""
    return cosines >= cosines.amax(dim=1, keepdim=True) - TOLERANCE
