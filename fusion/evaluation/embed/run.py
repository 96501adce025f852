"""Embed the items of a data set, each process a share of the batches."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate
from tqdm import tqdm

from fusion.batches import Collate, NumberedCollate, NumberedItems, start_reading
from fusion.data.datasets.dataset import collate as collate_clips
from fusion.distributed import rank, world_size
from fusion.evaluation.embed.captions import CaptionsOfClips
from fusion.evaluation.embed.embedded import Embedded, SharedRows
from fusion.evaluation.embed.plan import CLIP, ITEM, PRESENT, EachItem, Plan
from fusion.evaluation.embed.store import Store, Written
from fusion.evaluation.together import all_or_none, tell


def embed(
    model: nn.Module,
    clips: Dataset[Any],
    accelerator: Accelerator | None = None,
    batch_size: int = 256,
    collate: Collate = collate_clips,
    combinations: Sequence[str] | None = None,
    shows: Sequence[int] | None = None,
    workers: int = 0,
) -> Embedded:
    """Embed every clip once and every text once; every process gets all.

    Args:
        model: maps inputs to embeddings by combination; may have an attribute ``similarity``.
        clips: see :class:`fusion.data.datasets.dataset.ClipSet`.
        accelerator: says on which device to work; that of the model if not given.
        batch_size: clips at a time on one process; it changes results by rounding alone. It is
            halved where memory runs out.
        collate: makes a batch of items.
        combinations: which to compute; those of the model if not given.
        shows: the number of each item's clip. Items of one clip differ only in their text, so all
            else is read and embedded once. None: every item is embedded by itself.
        workers: processes that read the items; 0: this one.

    Raises:
        OtherProcessFailed: another process failed.
        OSError: there is no room for the embeddings.
    """
    model.eval()
    device = accelerator.device if accelerator else next(model.parameters()).device
    chosen = getattr(model, "combinations", None) if combinations is None else combinations
    plan: Plan = EachItem(clips, batch_size, collate, combinations, device)
    if shows is not None and chosen is not None and len(set(shows)) < len(shows):
        plan = CaptionsOfClips(clips, batch_size, shows, chosen, device, accelerator)
    mine = plan.batches[rank() :: world_size()]
    loader: DataLoader[Any] = DataLoader(
        plan.items,
        batch_sampler=mine,
        collate_fn=plan.collate,
        num_workers=min(workers, len(mine)),
        pin_memory=device.type == "cuda",
    )
    hidden = rank() > 0 or len(plan.batches) == 1
    read = start_reading(loader)
    bar = tqdm(read, total=len(mine), desc="embedding", unit="batch", leave=False, disable=hidden)
    names: list[tuple[int, str]] = []
    first: list[Written] | None = None
    batches = zip(mine, bar, strict=True)

    def work(numbers: Sequence[int], batch: Any) -> list[Written]:
        names.extend(plan.names(numbers, batch))
        return plan.embed(model, numbers, batch)

    with torch.no_grad():
        with all_or_none():  # one batch tells how wide embeddings are
            for numbers, batch in batches:
                first = work(numbers, batch)
                break
        store = Store(first, plan.counts)
        with all_or_none():
            store.write(first or [])
            first = None  # its memory is that of a batch
            for numbers, batch in batches:
                store.write(work(numbers, batch))
    store.exchange(lambda process: plan.rows(plan.batches[process :: world_size()]))
    return _put_together(plan, store.tensors, names, getattr(model, "similarity", "cosine"))


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


def _put_together(
    plan: Plan, tensors: Mapping[str, Tensor], names: Sequence[tuple[int, str]], similarity: str
) -> Embedded:
    ids = dict(itertools.chain(*tell(names)))
    size, clips = plan.counts[ITEM], plan.clip_of_items
    if len(ids) != size:
        raise RuntimeError(f"{len(ids)} of {size} clips were embedded; the processes disagree")
    rows: dict[str, Tensor] = {}
    places: dict[str, Tensor] = {}
    present: dict[str, Tensor] = {}
    for name, values in tensors.items():
        kind, _, what = name.partition(" ")
        if what.startswith(PRESENT):
            flags = values if kind == ITEM or clips is None else values[clips]
            present[what.removeprefix(PRESENT)] = flags.clone()
            continue
        rows[what] = values
        if kind == CLIP and clips is not None:
            places[what] = clips
    embeddings = SharedRows({c: rows[c] for c in plan.order(rows)}, places) if places else rows
    ordered = {m: present[m] for m in plan.order_of_modalities(present)}
    return Embedded(tuple(ids[i] for i in range(size)), embeddings, ordered, similarity=similarity)
