"""Embed a data set: every clip once, in every combination, on one or several processes."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate
from tqdm import tqdm

from fusion.batches import Collate, NumberedCollate, NumberedItems
from fusion.data.captions.table import Caption
from fusion.data.datasets.dataset import collate as collate_clips
from fusion.distributed import rank, world_size
from fusion.modalities import letters_of


@dataclasses.dataclass(frozen=True)
class Embedded:
    """The embeddings of N items: clips, or pairs of a caption and its clip.

    Attributes:
        ids: names of the items.
        embeddings: for each combination (N, E), on the CPU.
        present: for each modality (N,) bool.
        shows: the number of each item's clip, (N,) int64; items of one clip differ only in their
            text. None: every item is a clip.
        similarity: ``cosine``, or ``dot``, which depends on the lengths of embeddings.
        items: of each item, what the data say of it. None: not read.
    """

    ids: tuple[str, ...]
    embeddings: Mapping[str, Tensor]
    present: Mapping[str, Tensor]
    shows: Tensor | None = None
    similarity: str = "cosine"
    items: tuple[Caption, ...] | None = None

    @property
    def clips(self) -> Tensor:
        """The number of each item's clip, (N,) int64."""
        return torch.arange(len(self.ids)) if self.shows is None else self.shows

    @property
    def num_clips(self) -> int:
        """The number of different clips."""
        return len(self.clips.unique())

    @property
    def captions(self) -> Tensor | None:
        """``clips`` where a clip has several captions; None where each has one."""
        return self.shows if self.num_clips < len(self.ids) else None

    def by_cosine(self) -> Embedded:
        """The same, to be compared by cosine: embeddings of a dot product get unit length."""
        if self.similarity == "cosine":
            return self
        units = {c: F.normalize(rows, dim=-1) for c, rows in self.embeddings.items()}
        return dataclasses.replace(self, embeddings=units, similarity="cosine")

    def one_per_clip(self, rows: Tensor) -> Tensor:
        """Keep the first of these (n,) items of each clip, in their order."""
        _, first = np.unique(self.clips[rows].numpy(), return_index=True)
        return rows[torch.from_numpy(np.sort(first))]


def embed(
    model: nn.Module,
    clips: Dataset[Any],
    accelerator: Accelerator | None = None,
    batch_size: int = 256,
    collate: Collate = collate_clips,
    combinations: Sequence[str] | None = None,
) -> Embedded:
    """Embed every clip once, each process a share, and gather all on every process.

    Args:
        model: maps inputs to embeddings by combination; may have an attribute ``similarity``.
        clips: see :class:`fusion.data.datasets.dataset.ClipSet`.
        accelerator: says on which device to work; that of the model if not given.
        batch_size: clips at a time on one process; it changes results by rounding alone.
        collate: makes a batch of items.
        combinations: which to compute; those of the model if not given.

    Raises:
        RuntimeError: the processes did not embed every clip once.
    """
    size = len(clips)  # type: ignore[arg-type]
    # Each process takes whole batches, so that a batch is the same on any number of processes.
    batches = [list(range(i, min(i + batch_size, size))) for i in range(0, size, batch_size)]
    mine = range(rank(), len(batches), world_size())
    loader = DataLoader(clips, batch_sampler=[batches[i] for i in mine], collate_fn=collate)
    model.eval()
    chosen = () if combinations is None else (combinations,)
    device = accelerator.device if accelerator else next(model.parameters()).device
    hidden = rank() > 0 or len(batches) == 1
    bar = tqdm(loader, desc="embedding", unit="batch", leave=False, disable=hidden)
    rows: list[tuple[int, tuple[str, ...], dict[str, Tensor], dict[str, Tensor]]] = []
    with torch.no_grad():
        for number, batch in zip(mine, bar, strict=True):
            batch = batch.to(device)
            sides = (model(batch.inputs, *chosen), batch.present)
            rows.append((number, batch.ids, *({n: x.cpu() for n, x in s.items()} for s in sides)))
    gathered = [rows] * world_size()
    if len(gathered) > 1:
        torch.distributed.all_gather_object(gathered, rows)
    parts = sorted(itertools.chain(*gathered), key=lambda part: part[0])
    ids = tuple(name for part in parts for name in part[1])
    if len(ids) != size:
        raise RuntimeError(f"{len(ids)} of {size} clips were embedded; the processes disagree")
    return Embedded(
        ids,
        {c: torch.cat([part[2][c] for part in parts]) for c in parts[0][2]},
        {m: torch.cat([part[3][m] for part in parts]) for m in parts[0][3]},
        similarity=getattr(model, "similarity", "cosine"),
    )


def embed_dataset(
    model: nn.Module,
    dataset: Dataset[Any] | Sequence[Any],
    batch_size: int = 256,
    collate: Collate = default_collate,
    modalities: Sequence[str] = (),
) -> Embedded:
    """Embed every item of any data set; on several processes each embeds a share.

    The model is in evaluation mode meanwhile, without gradient, and stays on its device.

    Args:
        model: maps what ``collate`` returns to a dict of named (B, E) tensors.
        dataset: items by number.
        batch_size: items at a time on one process.
        collate: makes a batch of items, see :func:`fusion.batches.as_batch`.
        modalities: names of modalities that every item has, for :func:`.rank_directions`.

    Returns:
        The (N, E) embeddings by name, on the CPU, in the order of the data set.
    """
    training = [module for module in model.modules() if module.training]
    items, numbered = NumberedItems(dataset), NumberedCollate(collate)
    embedded = embed(model, items, batch_size=batch_size, collate=numbered)
    for module in training:
        module.training = True
    every = dict.fromkeys(modalities, torch.ones(len(items), dtype=torch.bool))
    return dataclasses.replace(embedded, present={**every, **embedded.present})


def average_parts(embedded: Embedded, whole: Sequence[int]) -> Embedded:
    """Embed clips that were cut into parts as the mean of their parts.

    ``whole`` has for each part the number of its clip, from 0 on, in ascending order.
    """
    of = torch.tensor(whole)
    count = int(of[-1]) + 1
    first = torch.searchsorted(of, torch.arange(count))
    letters = letters_of(embedded.present)
    means = {}
    for combination, rows in embedded.embeddings.items():
        # Parts with no modality of the combination do not count.
        weight = torch.stack([embedded.present[letters[x]] for x in combination]).any(dim=0)
        weights = weight.to(rows.dtype)
        total = torch.zeros(count).index_add_(0, of, weights).clamp(min=1)
        summed = rows.new_zeros(count, rows.shape[1]).index_add_(0, of, rows * weights[:, None])
        means[combination] = summed / total[:, None]
    return Embedded(
        tuple(embedded.ids[i] for i in first.tolist()),
        means,
        {
            m: torch.zeros(count).index_add_(0, of, flags.float()) > 0
            for m, flags in embedded.present.items()
        },
        similarity=embedded.similarity,
    )


def keep_complete(embedded: Embedded, needs: Iterable[str]) -> Embedded:
    """Leave out the clips that lack one of these modalities."""
    everything = torch.ones(len(embedded.ids), dtype=torch.bool)
    return keep(
        embedded, torch.stack([everything, *(embedded.present[m] for m in needs)]).all(dim=0)
    )


def keep(embedded: Embedded, kept: Tensor) -> Embedded:
    """Keep only the items of a mask, (N,) bool."""
    places = kept.nonzero()[:, 0].tolist()
    return dataclasses.replace(
        embedded,
        ids=tuple(embedded.ids[place] for place in places),
        embeddings={c: rows[kept] for c, rows in embedded.embeddings.items()},
        present={m: flags[kept] for m, flags in embedded.present.items()},
        shows=None if embedded.shows is None else embedded.shows[kept],
        items=embedded.items and tuple(embedded.items[place] for place in places),
    )
