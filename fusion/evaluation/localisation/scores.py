"""Scores of the windows of a film for the steps that are looked for, in every direction.

Shapes: T windows, K steps, E embedding width.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fusion.evaluation.embed import Embedded
from fusion.evaluation.localisation.assignment import Scores
from fusion.evaluation.retrieval import has_any, side_embeddings
from fusion.modalities import Direction, directions, spell

TEXT = "text"


def directions_from_text(
    modalities: Iterable[str], combinations: Collection[str]
) -> list[Direction]:
    """List the directions from text to what a model embeds: t->v, t->va, t->v+a and so on."""
    names = list(modalities)
    if TEXT not in names:
        return []
    query = (spell([TEXT]),)
    return [
        way
        for way in directions(names)
        if way.query == query and {*way.query, *way.gallery} <= {*combinations}
    ]


def combinations_of(ways: Iterable[Direction]) -> list[str]:
    """List the combinations that windows are embedded in."""
    return list(dict.fromkeys(part for way in ways for part in way.gallery))


def score_windows(
    windows: Embedded, texts: Tensor, known: Tensor, ways: Iterable[Direction]
) -> dict[str, Scores]:
    """Compare each window with each step, as a gallery is compared with queries.

    Args:
        windows: embeddings of T windows.
        texts: (K, E) embeddings of the steps.
        known: (K,) bool; a step without a known word scores 0 everywhere.
        ways: directions from text.

    Returns:
        By direction (T, K) float32; minus infinity for a window that has no modality of it.
    """
    scores: dict[str, Scores] = {}
    every = torch.arange(len(windows.ids))
    for way in ways:
        found = side_embeddings(windows, way.gallery, every)
        scores[str(way)] = _compare(found, texts, known, windows.similarity)
        if windows.present:
            scores[str(way)][~has_any(windows, way.gallery).numpy()] = -np.inf
    return scores


def score_vectors(
    vectors: Mapping[str, Tensor], texts: Tensor, way: Direction, similarity: str
) -> Scores:
    """Do the same for one direction and embeddings by combination, all of which are known."""
    side = torch.stack([vectors[part] for part in way.gallery]).mean(dim=0)
    return _compare(side, texts, torch.ones(len(texts), dtype=torch.bool), similarity)


def _compare(found: Tensor, texts: Tensor, known: Tensor, similarity: str) -> Scores:
    found, texts = found.float(), texts.float()
    if similarity == "cosine":
        found, texts = F.normalize(found, dim=-1), F.normalize(texts, dim=-1)
    compared: Scores = (found @ texts.T * known).numpy()
    return compared
