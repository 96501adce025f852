"""From a model and clips to a retrieval table and the rank of every query."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import Subset

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


def embed_bank(
    model: nn.Module, clips: ClipSet, accelerator: Accelerator, batch_size: int, most: int
) -> Embedded:
    """Embed at most ``most`` training clips, evenly spaced, as the bank of QB-Norm."""
    number = min(most, len(clips))
    chosen = [place * len(clips) // number for place in range(number)]
    return embed(model, Subset(clips, chosen), collate, accelerator, batch_size)


def describe_result(
    source: Source, split: str, embedded: Embedded, rescoring: Rescoring, bank: Embedded | None
) -> tuple[dict[str, Any], Embedded, dict[str, Ranked]]:
    """Rank the clips of a split and make the table as the protocol of the data says.

    Args:
        source: the data.
        split: its name.
        embedded: all clips of the split.
        rescoring: which rescored tables are added.
        bank: what :func:`embed_bank` returns.

    Returns:
        The table, ready for JSON; the ``rule`` and the ``data`` of its ``protocol`` are given apart
        as well, because comparable tables may differ in their data. Then the clips of the gallery,
        and the ranks of its rows.
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
