"""Which batches a data set is embedded in, and what each gives.

Rows are of items, or of clips where several items share one.

Shapes: N items, U clips, B items of a batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from fusion.batches import Collate
from fusion.evaluation.embed.store import Written
from fusion.out_of_memory import Blocks
from fusion.tokens import Batch

ITEM, CLIP = "item", "clip"  # kinds of rows
PRESENT = "present "  # before the name of a modality


class Plan(Protocol):
    """A way to embed a data set.

    Attributes:
        items: what is read.
        batches: numbers of what is read together; the same on any number of processes.
        counts: how many rows there are of each kind.
        clip_of_items: the clip of each item, (N,) int64; None: there are no rows of clips.
    """

    items: Dataset[Any]
    batches: list[list[int]]
    counts: dict[str, int]
    clip_of_items: Tensor | None

    def collate(self, read: list[Any], /) -> Any:
        """Make a batch of what was read."""

    def embed(self, model: nn.Module, numbers: Sequence[int], batch: Any) -> list[Written]:
        """Embed a batch; the rows are on the CPU."""

    def names(self, numbers: Sequence[int], batch: Any) -> list[tuple[int, str]]:
        """Return the number and the name of each item of a batch."""

    def rows(self, batches: Iterable[Sequence[int]]) -> Mapping[str, Tensor]:
        """Return the rows of each kind that some batches give, in their order."""

    def order(self, combinations: Iterable[str]) -> list[str]:
        """Order combinations as the model does."""

    def order_of_modalities(self, names: Iterable[str]) -> list[str]:
        """Order modalities as the data do."""


class EachItem:
    """Every item is read and embedded by itself, see :class:`Plan`."""

    clip_of_items: Tensor | None = None

    def __init__(
        self,
        items: Dataset[Any],
        batch_size: int,
        collate: Collate,
        combinations: Sequence[str] | None,
        device: torch.device,
    ) -> None:
        self.items: Dataset[Any] = items
        self.collate, self.device = collate, device
        self.chosen = () if combinations is None else (combinations,)
        size = len(items)  # type: ignore[arg-type]
        starts = range(0, size, batch_size)
        self.batches = [list(range(i, min(i + batch_size, size))) for i in starts]
        self.counts = {ITEM: size}
        self.blocks = Blocks(batch_size, "clips")

    def embed(self, model: nn.Module, numbers: Sequence[int], batch: Batch) -> list[Written]:
        """Embed a batch; the rows are on the CPU."""
        parts: list[dict[str, Tensor]] = []

        def work(start: int, stop: int) -> None:
            part = batch.part(start, stop).to(self.device, non_blocking=True)
            found = model(part.inputs, *self.chosen)
            parts.append({name: rows.cpu() for name, rows in found.items()})

        self.blocks.run(len(batch.ids), work)
        places = torch.tensor(numbers)
        flags = {PRESENT + name: own for name, own in batch.present.items()}
        found = {name: join([part[name] for part in parts]) for name in parts[0]} | flags
        return [Written(f"{ITEM} {name}", ITEM, places, rows) for name, rows in found.items()]

    def names(self, numbers: Sequence[int], batch: Batch) -> list[tuple[int, str]]:
        """Return the number and the name of each item of a batch."""
        return list(zip(numbers, batch.ids, strict=True))

    def rows(self, batches: Iterable[Sequence[int]]) -> Mapping[str, Tensor]:
        """Return the rows that some batches give, in their order."""
        return {ITEM: torch.tensor([i for batch in batches for i in batch], dtype=torch.int64)}

    def order(self, combinations: Iterable[str]) -> list[str]:
        """Keep the order, which is that of the model."""
        return list(combinations)

    order_of_modalities = order


def join(parts: Sequence[Tensor]) -> Tensor:
    """Put rows after one another; a single part is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))
