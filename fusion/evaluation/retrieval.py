"""Retrieval in every direction: embed a data set, rank it, say how it was counted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from fusion.evaluation.metrics import (
    Ranks,
    bootstrap_interval,
    chance,
    ranks_of_pairs,
    retrieval_metrics,
)
from fusion.modalities import Direction, directions, letters_of
from fusion.tokens import Batch

MISSING_RULE = (
    "a clip that lacks every modality of the query or of the gallery side is neither asked nor"
    " found in that direction and counts as a miss in each recall; median and mean rank are over"
    " the others; a clip that lacks only some of the modalities of a side stays in"
)


@dataclasses.dataclass(frozen=True)
class Embedded:
    """A data set as a model sees it.

    Attributes:
        ids: names of the N clips.
        embeddings: for each combination (N, E), on the CPU.
        present: for each modality (N,) bool.
    """

    ids: tuple[str, ...]
    embeddings: Mapping[str, Tensor]
    present: Mapping[str, Tensor]


def embed(
    model: nn.Module,
    clips: Dataset[Any],
    collate: Callable[[Sequence[Any]], Batch],
    accelerator: Accelerator,
    batch_size: int = 256,
    combinations: Iterable[str] | None = None,
) -> Embedded:
    """Embed every clip once, each process its share, and bring all to every process.

    Args:
        model: maps inputs to embeddings by combination.
        clips: items that ``collate`` makes batches of.
        collate: see ``torch.utils.data.DataLoader``.
        accelerator: the processes.
        batch_size: clips at a time on one process; it changes the speed, not the result.
        combinations: which to compute; all that the model can if not given.

    Raises:
        RuntimeError: the shares do not add up to the data set.
    """
    size = len(clips)  # type: ignore[arg-type]
    # Whole batches are dealt out, so that a batch is the same on any number of processes.
    batches = [list(range(size))[i : i + batch_size] for i in range(0, size, batch_size)]
    mine = range(accelerator.process_index, len(batches), accelerator.num_processes)
    loader = DataLoader(clips, batch_sampler=[batches[i] for i in mine], collate_fn=collate)
    model.eval()
    rows: list[tuple[int, tuple[str, ...], dict[str, Tensor], dict[str, Tensor]]] = []
    with torch.no_grad():
        for number, batch in zip(
            mine,
            tqdm(
                loader,
                desc="embedding",
                unit="batch",
                leave=False,
                disable=not accelerator.is_main_process,
            ),
            strict=True,
        ):
            batch = batch.to(accelerator.device)
            outputs = model(batch.inputs, combinations)
            rows.append((number, batch.ids, _on_cpu(outputs), _on_cpu(batch.present)))
    parts = sorted(_from_all_ranks(rows, accelerator), key=lambda part: part[0])
    ids = tuple(name for part in parts for name in part[1])
    if len(ids) != size:
        raise RuntimeError(f"{len(ids)} of {size} clips were embedded; the processes disagree")
    return Embedded(
        ids,
        {c: torch.cat([part[2][c] for part in parts]) for c in parts[0][2]},
        {m: torch.cat([part[3][m] for part in parts]) for m in parts[0][3]},
    )


def average_parts(embedded: Embedded, whole: Sequence[int]) -> Embedded:
    """Put clips together that were cut: the mean of what their parts have.

    Args:
        embedded: the parts.
        whole: for each part the number of its clip, from 0 on, in ascending order.
    """
    of = torch.tensor(whole)
    count = int(of[-1]) + 1
    first = torch.searchsorted(of, torch.arange(count))

    def any_part(flags: Tensor) -> Tensor:
        return torch.zeros(count).index_add_(0, of, flags.float()) > 0

    letters = letters_of(embedded.present)
    means = {}
    for combination, rows in embedded.embeddings.items():
        # A part without any modality of it says nothing.
        weight = torch.stack([embedded.present[letters[x]] for x in combination]).any(dim=0)
        weights = weight.to(rows.dtype)
        total = torch.zeros(count).index_add_(0, of, weights).clamp(min=1)
        summed = rows.new_zeros(count, rows.shape[1]).index_add_(0, of, rows * weights[:, None])
        means[combination] = summed / total[:, None]
    return Embedded(
        tuple(embedded.ids[i] for i in first.tolist()),
        means,
        {m: any_part(flags) for m, flags in embedded.present.items()},
    )


def keep_complete(embedded: Embedded, needs: Iterable[str]) -> Embedded:
    """Leave out the clips that lack one of these modalities."""
    kept = torch.ones(len(embedded.ids), dtype=torch.bool)
    for modality in needs:
        kept &= embedded.present[modality]
    return Embedded(
        tuple(name for name, keep in zip(embedded.ids, kept.tolist(), strict=True) if keep),
        {c: rows[kept] for c, rows in embedded.embeddings.items()},
        {m: flags[kept] for m, flags in embedded.present.items()},
    )


def rank_directions(
    embedded: Embedded, chosen: Iterable[Direction] | None = None
) -> dict[str, tuple[Ranks, Tensor]]:
    """Rank every direction for which the model embeds what is needed.

    Returns:
        For each direction the ranks of the clips that could be asked and found, and which clips of
        the data set those are, (n,) int64.
    """
    letters = letters_of(embedded.present)
    ranked = {}
    for direction in chosen or directions(list(embedded.present)):
        parts = direction.query + direction.gallery
        if not all(part in embedded.embeddings for part in parts):
            continue
        sides = [
            torch.stack([embedded.present[letters[x]] for x in "".join(side)]).any(dim=0)
            for side in (direction.query, direction.gallery)
        ]
        rows = (sides[0] & sides[1]).nonzero()[:, 0]
        query, gallery = (
            _average([embedded.embeddings[part][rows] for part in side])
            for side in (direction.query, direction.gallery)
        )
        ranked[str(direction)] = ranks_of_pairs(query, gallery), rows
    return ranked


def retrieval_table(
    ranked: Mapping[str, tuple[Ranks, Tensor]], num_clips: int, intervals: bool = True
) -> dict[str, dict[str, Any]]:
    """Summarise the ranks of each direction; one that no clip can serve is left out."""
    table: dict[str, dict[str, Any]] = {}
    for direction, (ranks, _) in ranked.items():
        if not len(ranks):
            continue
        row: dict[str, Any] = retrieval_metrics(ranks, num_clips)
        if intervals:
            row["R@1_interval"] = list(bootstrap_interval(ranks, num_clips))
        table[direction] = row | {"queries": num_clips, "gallery": len(ranks)}
    return table


def describe_evaluation(
    name: str,
    protocol: str,
    embedded: Embedded,
    table: Mapping[str, Any],
    ceiling: Mapping[str, Any] | None,
    counted: int,
) -> dict[str, Any]:
    """Put a table together with what it takes to read it, ready for JSON.

    Args:
        name: of the split.
        protocol: one sentence.
        embedded: the clips in the gallery.
        table: see :func:`retrieval_table`.
        ceiling: what can be reached at best in each direction.
        counted: queries that recalls are shares of.
    """
    total = len(embedded.ids)
    missing = {m: int((~flags).sum()) for m, flags in embedded.present.items()}
    result: dict[str, Any] = {
        "set": name,
        "protocol": protocol,
        "gallery": total,
        "counted": counted,
        "clips": {"total": total, "missing": missing, "rule": MISSING_RULE},
        "directions": dict(table),
        "chance": chance(counted),
    }
    return result | {"ceiling": dict(ceiling) if ceiling else None}


def format_table(result: Mapping[str, Any]) -> str:
    """Write an evaluation for a terminal."""
    clips = result["clips"]
    missing = ", ".join(f"{count} without {m}" for m, count in clips["missing"].items())
    ceiling = result["ceiling"] or {}
    head = ["direction", "R@1", "[95 %]", "R@5", "R@10", "R@50", "MedR", "MeanR", "GeoMean"]
    lines = [head + (["ceiling R@1"] if ceiling else [])]
    for direction, row in result["directions"].items():
        low, high = row["R@1_interval"]
        line = [direction, f"{row['R@1']:.1f}", f"[{low:.1f}, {high:.1f}]"]
        line += [f"{row[k]:.1f}" for k in head[3:]]
        if ceiling:
            line.append(f"{ceiling[direction]['R@1']:.1f}" if direction in ceiling else "-")
        lines.append(line)
    guess = result["chance"]
    line = ["chance", f"{guess['R@1']:.1f}", ""]
    lines.append(line + [f"{guess[k]:.1f}" if k in guess else "-" for k in head[3:]])
    width = [max(len(line[i]) for line in lines if i < len(line)) for i in range(len(lines[0]))]
    rows = [
        "  ".join(cell.rjust(w) for cell, w in zip(line, width, strict=False)) for line in lines
    ]
    facts = [
        f"set       {result['set']}: {clips['total']} clips{_of(result)}, {missing}",
        f"protocol  {result['protocol']}",
        f"missing   {clips['rule']}",
    ]
    return "\n".join([*facts, "", *rows])


def _of(result: Mapping[str, Any]) -> str:
    more = result["counted"] != result["gallery"]
    return f" in the gallery, {result['counted']} counted" if more else ""


def _average(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(parts)).mean(dim=0)


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.cpu() for name, tensor in tensors.items()}


def _from_all_ranks(rows: list[Any], accelerator: Accelerator) -> list[Any]:
    if accelerator.num_processes == 1:
        return rows
    gathered: list[Any] = [None] * accelerator.num_processes
    torch.distributed.all_gather_object(gathered, rows)
    return [part for rank in gathered for part in rank]
