"""Embed a data set: every clip once and every text once, on one or several processes."""

from fusion.evaluation.embed.embedded import (
    Embedded,
    SharedRows,
    average_parts,
    keep,
    keep_complete,
)
from fusion.evaluation.embed.run import embed, embed_dataset

__all__ = [
    "Embedded",
    "SharedRows",
    "average_parts",
    "embed",
    "embed_dataset",
    "keep",
    "keep_complete",
]
