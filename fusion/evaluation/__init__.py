"""Embed a split, rank it in every direction, and compute metrics with intervals."""

from fusion.evaluation.embed import Embedded, embed_dataset
from fusion.evaluation.metrics import chance, retrieval_metrics
from fusion.evaluation.ranking import ranks_of_pairs
from fusion.evaluation.retrieval import rank_directions, retrieval_table

__all__ = [
    "Embedded",
    "chance",
    "embed_dataset",
    "rank_directions",
    "ranks_of_pairs",
    "retrieval_metrics",
    "retrieval_table",
]
