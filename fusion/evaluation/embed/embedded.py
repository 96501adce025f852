"""The embeddings of a data set, of which items may share rows.

Shapes: N items, n rows, E embedding width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fusion.data.captions.table import Caption
from fusion.evaluation.ranking.side import Side
from fusion.modalities import letters_of


class SharedRows(Mapping[str, Tensor]):
    """The (N, E) embeddings of each combination, where items may share rows.

    Without text, all captions of a clip have one row. Reading a combination copies its rows;
    :meth:`Embedded.side` does not.

    Args:
        rows: for each combination (n, E).
        places: for some of them the row of each item, (N,) int64; of the others row i is item i.
    """

    def __init__(self, rows: Mapping[str, Tensor], places: Mapping[str, Tensor]) -> None:
        self.rows, self.places = dict(rows), dict(places)

    def __getitem__(self, combination: str) -> Tensor:
        """Copy the embeddings of all items: (N, E)."""
        places = self.places.get(combination)
        rows = self.rows[combination]
        return rows if places is None else rows[places]

    def __iter__(self) -> Iterator[str]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def keep(self, items: Tensor) -> SharedRows:
        """Keep some items (n,), in this order, without a copy."""
        places = {c: self.places[c][items] if c in self.places else items for c in self.rows}
        return SharedRows(self.rows, places)

    def map(self, change: Callable[[Tensor], Tensor]) -> SharedRows:
        """Change the rows of each combination; each stays in its place."""
        return SharedRows({c: change(rows) for c, rows in self.rows.items()}, self.places)


@dataclasses.dataclass(frozen=True)
class Embedded:
    """The embeddings of N items: clips, or pairs of a caption and its clip.

    Attributes:
        ids: names of the items.
        embeddings: for each combination (N, E), on the CPU, see also :class:`SharedRows`.
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
        units: Mapping[str, Tensor]
        if isinstance(self.embeddings, SharedRows):
            units = self.embeddings.map(lambda rows: F.normalize(rows, dim=-1))
        else:
            units = {c: F.normalize(rows, dim=-1) for c, rows in self.embeddings.items()}
        return dataclasses.replace(self, embeddings=units, similarity="cosine")

    def side(self, combinations: Sequence[str], items: Tensor) -> Side:
        """Average the embeddings of combinations for some items (n,), without a copy of them."""
        found = [_stored(self.embeddings, c) for c in combinations]
        places = [items if own is None else own[items] for _, own in found]
        return Side([rows for rows, _ in found], places)

    def one_per_clip(self, rows: Tensor) -> Tensor:
        """Keep the first of these (n,) items of each clip, in their order."""
        _, first = np.unique(self.clips[rows].numpy(), return_index=True)
        return rows[torch.from_numpy(np.sort(first))]


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
    """Keep only the items of a mask, (N,) bool; their embeddings are not copied."""
    if kept.all():
        return embedded
    items = kept.nonzero()[:, 0]
    places, rows = items.tolist(), embedded.embeddings
    shared = rows if isinstance(rows, SharedRows) else SharedRows(rows, {})
    return dataclasses.replace(
        embedded,
        ids=tuple(embedded.ids[place] for place in places),
        embeddings=shared.keep(items),
        present={m: flags[kept] for m, flags in embedded.present.items()},
        shows=None if embedded.shows is None else embedded.shows[kept],
        items=embedded.items and tuple(embedded.items[place] for place in places),
    )


def _stored(embeddings: Mapping[str, Tensor], combination: str) -> tuple[Tensor, Tensor | None]:
    """Return the rows of a combination and the place of each item among them, if they differ."""
    if isinstance(embeddings, SharedRows):
        return embeddings.rows[combination], embeddings.places.get(combination)
    return embeddings[combination], None
