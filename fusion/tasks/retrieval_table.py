"""From a model and clips to a retrieval table and the rank of every query."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from fusion.data.datasets.dataset import ClipSet, Source, collate
from fusion.evaluation.embed import Embedded, average_parts, embed, keep_complete
from fusion.evaluation.rescoring import Rescoring, rescored_tables
from fusion.evaluation.retrieval import Ranked, rank_directions, retrieval_table
from fusion.report.retrieval import describe_evaluation
from fusion.report.runs import pack_scores
from fusion.words import words_of


def embed_clips(
    model: nn.Module, clips: ClipSet, accelerator: Accelerator, batch_size: int
) -> Embedded:
    """Embed clips, each as a whole, see :func:`fusion.evaluation.embed.embed`."""
    embedded = embed(model, clips, collate, accelerator, batch_size)
    if clips.whole is not None:
        embedded = average_parts(embedded, clips.whole)
    texts = tuple(caption.text for caption in clips.captions)
    unknown = torch.zeros(len(embedded.ids), dtype=torch.bool)
    for item in (~embedded.present.get("text", ~unknown)).nonzero()[:, 0].tolist():
        unknown[item] = bool(words_of(texts[item]))
    shows = torch.tensor(clips.shows)
    return dataclasses.replace(embedded, shows=shows, unknown=unknown, texts=texts)


def describe_result(
    source: Source, split: str, embedded: Embedded, rescoring: Rescoring, bank: Embedded | None
) -> tuple[dict[str, Any], Embedded, dict[str, Ranked]]:
    """Rank the clips of a split as the protocol of its data says; ``bank`` is for QB-Norm.

    Returns:
        The result, ready for JSON, the clips of the gallery, and the ranks of its rows. The result
        has the ``rule`` and the ``data`` of its ``protocol`` apart too, as comparable results may
        differ in their data.
    """
    protocol = source.protocol(split)
    counted, captions = protocol.counted or embedded.num_clips, embedded.captions
    gallery = keep_complete(embedded, protocol.needs)
    ranked = rank_directions(gallery)
    table = retrieval_table(ranked, counted, captions)
    rescored = rescored_tables(gallery, rescoring, bank, counted, captions)
    parts = {"rule": protocol.describe(gallery.num_clips), "data": source.describe(split)}
    said = f"{parts['rule']}; {parts['data']}; ties count as their mean place"
    by_cosine = None
    if gallery.similarity != "cosine":
        by_cosine = retrieval_table(rank_directions(gallery.by_cosine()), counted, captions)
    ceiling = source.ceiling(split)
    result = describe_evaluation(split, said, gallery, table, ceiling, counted, rescored, by_cosine)
    return result | {"protocol_parts": parts}, gallery, ranked


def pack_ranks(gallery: Embedded, ranked: Mapping[str, Ranked]) -> bytes:
    """Write the ranks of every query for comparisons, see :func:`.pack_scores`."""
    rows = {way: (found.ranks, found.rows.numpy()) for way, found in ranked.items()}
    texts = gallery.texts or gallery.ids
    return pack_scores(gallery.ids, gallery.clips.numpy(), texts, rows, kind="ranks")
