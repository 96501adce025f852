"""What it takes to read a retrieval table: as data for JSON, and as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from fusion.evaluation.embed import Embedded
from fusion.evaluation.metrics import chance, chance_among_captions
from fusion.evaluation.retrieval import CAPTION

MISSING_RULE = (
    "a clip that lacks every modality of the query or of the gallery side is neither asked nor"
    " found in that direction and counts as a miss in each recall; median and mean rank are over"
    " the others; a clip that lacks only some of the modalities of a side stays in"
)
NOT_COMPARABLE = "rescored: not comparable with the rows above"
COMPARED = {"dot": "by dot product, as in training: the lengths of embeddings count"}
BY_COSINE = "the same by cosine: every embedding is scaled to unit length first"
COLUMNS = ("R@5", "R@10", "R@50", "MedR", "MeanR", "GeoMean")


def describe_evaluation(
    name: str,
    protocol: str,
    embedded: Embedded,
    table: Mapping[str, Any],
    ceiling: Mapping[str, Any] | None,
    counted: int,
    rescored: Mapping[str, Any] | None = None,
    by_cosine: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Put a table together with what it takes to read it, ready for JSON.

    Args:
        name: of the split.
        protocol: one sentence.
        embedded: the clips in the gallery.
        table: see :func:`fusion.evaluation.retrieval.retrieval_table`.
        ceiling: what can be reached at best in each direction.
        counted: clips that recalls are shares of.
        rescored: see :func:`fusion.evaluation.rescoring.rescored_tables`; stays apart from the
            plain directions.
        by_cosine: the table by cosine, beside that of a model which is compared otherwise.
    """
    total, captions = embedded.num_clips, embedded.captions
    clips: dict[str, Any] = {"total": total}
    if captions is not None:
        clips["captions"] = len(captions)
    if embedded.unknown is not None and (unknown := int(embedded.unknown.sum())):
        clips["without_known_words"] = unknown
    result: dict[str, Any] = {
        "set": name,
        "protocol": protocol,
        "gallery": total,
        "counted": counted,
        "clips": clips | {"missing": _count_missing(embedded), "rule": MISSING_RULE},
        "similarity": embedded.similarity,
        "directions": dict(table),
        "chance": chance(total, counted),
    }
    if captions is not None:
        result["chance_among_captions"] = chance_among_captions(captions.numpy())
    result["ceiling"] = dict(ceiling) if ceiling else None
    if by_cosine:
        result["by_cosine"] = dict(by_cosine)
    return result | ({"rescored": dict(rescored)} if rescored else {})


def format_table(result: Mapping[str, Any]) -> str:
    """Write an evaluation for a terminal."""
    clips = result["clips"]
    missing = ", ".join(f"{count} without {m}" for m, count in clips["missing"].items())
    if unknown := clips.get("without_known_words"):
        missing += f" ({unknown} of the texts that count as missing have words, but none is known)"
    captions = f" with {clips['captions']} captions" if "captions" in clips else ""
    facts = [
        f"set       {result['set']}: {clips['total']} clips{captions}{_of(result)}, {missing}",
        f"protocol  {result['protocol']}",
        f"missing   {clips['rule']}",
    ]
    if result["similarity"] != "cosine":
        facts.append(f"compared  {COMPARED[result['similarity']]}")
    parts = [*facts, "", *_plain_rows(result)]
    if by_cosine := result.get("by_cosine"):
        parts += ["", BY_COSINE, "", *_plain_rows({**result, "directions": by_cosine})]
    if rescored := result.get("rescored"):
        parts += ["", NOT_COMPARABLE, *_rescored_rows(rescored)]
    return "\n".join(parts)


def _plain_rows(result: Mapping[str, Any]) -> list[str]:
    ceiling = result["ceiling"] or {}
    head = ["direction", "R@1", "[95 %]", *COLUMNS, "queries", "candidates"]
    lines = [head + (["ceiling R@1"] if ceiling else [])]
    for direction, row in result["directions"].items():
        low, high = row["R@1_interval"]
        line = [direction, f"{row['R@1']:.1f}", f"[{low:.1f}, {high:.1f}]", *_numbers(row)]
        if ceiling:
            line.append(f"{ceiling[direction]['R@1']:.1f}" if direction in ceiling else "-")
        lines.append(line)
    for name, key in {"chance": "chance", "chance, captions": "chance_among_captions"}.items():
        if guess := result.get(key):
            lines.append([name, f"{guess['R@1']:.1f}", "", *_numbers(guess)])
    return align(lines)


def _rescored_rows(rescored: Mapping[str, Any]) -> list[str]:
    """Write what each way of rescoring assumes, then its rows."""
    lines = [["direction", "R@1", *COLUMNS, "queries", "candidates"]]
    for way, part in rescored.items():
        for direction, row in part["directions"].items():
            lines.append([f"{direction} {way}", f"{row['R@1']:.1f}", *_numbers(row)])
    notes = [f"  {way} ({part['paper']}) {part['assumes']}" for way, part in rescored.items()]
    return [*notes, "", *align(lines)]


def _numbers(row: Mapping[str, Any]) -> list[str]:
    counts = [str(row.get(name, "")) for name in ("queries", "gallery")]
    return [f"{row[name]:.1f}" if name in row else "-" for name in COLUMNS] + counts


def align(lines: Sequence[Sequence[str]]) -> list[str]:
    """Write rows of cells as lines, every column as wide as its widest cell."""
    width = [max(len(line[i]) for line in lines if i < len(line)) for i in range(len(lines[0]))]
    return [
        "  ".join(cell.rjust(w) for cell, w in zip(line, width, strict=False)) for line in lines
    ]


def _count_missing(embedded: Embedded) -> dict[str, int]:
    """Count the captions that are empty, and the clips that lack another modality."""
    every = torch.arange(len(embedded.ids))
    one = embedded.one_per_clip(every)
    return {
        name: int((~flags[every if name == CAPTION else one]).sum())
        for name, flags in embedded.present.items()
    }


def _of(result: Mapping[str, Any]) -> str:
    more = result["counted"] != result["gallery"]
    return f" in the gallery, {result['counted']} counted" if more else ""
