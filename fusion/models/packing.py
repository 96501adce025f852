"""Grids of slots, with which passes over the same tokens, ``t``, ``v``, ``tv``, become one.

One grid holds every token of a clip once, another one a row for each token of each pass, and a mask
says which row may see which token. All other layers work on packed tokens, without padding.

Shapes: B clips, S slots of a clip, N filled slots of all clips, D width.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from fusion.tokens import Tokens, pick, place, true_places


@dataclasses.dataclass(frozen=True)
class Span:
    """Neighbouring slots."""

    name: str  # of the modality whose tokens they hold
    group: int | None = None  # the pass that they belong to; None: every pass may read them
    members: tuple[str, ...] = ()  # names that attend to one another in that pass

    def may_see(self, other: Span) -> bool:
        """Return whether a row of this span may attend to a token of the other."""
        return other.name in self.members if other.group is None else other.group == self.group


class Grid:
    """Spans of so many slots each; each clip fills the first few slots of each span.

    ``lengths`` are (B,) the numbers of slots that the clips fill, for each span; ``host_lengths``
    the same in CPU memory.
    """

    def __init__(
        self,
        spans: Sequence[Span],
        sizes: Sequence[int],
        lengths: Sequence[Tensor],
        host_lengths: Sequence[Tensor],
    ) -> None:
        self.spans, self.sizes, self.lengths = tuple(spans), list(sizes), list(lengths)
        self.num_clips = len(lengths[0])
        self.num_slots = sum(self.sizes)
        self.count = sum(int(host.sum()) for host in host_lengths)  # N
        self.has_empty_span = any(int(host.min()) == 0 for host in host_lengths if len(host))
        self.is_full = self.count == self.num_clips * self.num_slots

    @functools.cached_property
    def mask(self) -> Tensor:
        """(B, S) bool: the filled slots."""
        parts = [
            torch.arange(size, device=lengths.device) < lengths[:, None]
            for size, lengths in zip(self.sizes, self.lengths, strict=True)
        ]
        return torch.cat(parts, dim=1)

    @functools.cached_property
    def places(self) -> Tensor:
        """(N,) int64: the filled slots of all clips, clip after clip."""
        return true_places(self.mask, self.count)

    def pad(self, values: Tensor) -> Tensor:
        """Put packed rows into their slots: (N, D) -> (B, S, D), zero where a slot is empty."""
        if not self.is_full:
            values = place(values, self.places, self.num_clips * self.num_slots)
        return values.unflatten(0, (self.num_clips, self.num_slots))

    def pack(self, padded: Tensor) -> Tensor:
        """Take the filled slots: (B, S, D) -> (N, D)."""
        rows = padded.flatten(0, 1)
        return rows if self.is_full else pick(rows, self.places)

    def mean(self, values: Tensor) -> Tensor:
        """Average each span of each clip: (N, D) -> (spans, B, D); 0 where a clip fills none."""
        sums = [part.sum(dim=1) for part in self.pad(values).split(self.sizes, dim=1)]
        counts = torch.stack(self.lengths).clamp(min=1).to(values.dtype)  # (spans, B)
        return torch.stack(sums) / counts[..., None]

    def max(self, values: Tensor) -> Tensor:
        """Take the maximum over each span of each clip: (N, D) -> (spans, B, D); 0 without any."""
        padded = self.pad(values)
        if not self.is_full:
            lowest = torch.finfo(values.dtype).min
            padded = padded.masked_fill(~self.mask[..., None], lowest)
        parts = [
            part.amax(dim=1) if part.shape[1] else part.sum(dim=1)  # no clip fills it
            for part in padded.split(self.sizes, dim=1)
        ]
        return torch.stack(parts).masked_fill((torch.stack(self.lengths) == 0)[..., None], 0)

    def spread(self, padded: Tensor, target: Grid) -> Tensor:
        """Copy each span to all spans of ``target`` that come from it: (B, S, D) -> (B, S', D)."""
        sources = [
            next(
                i
                for i, span in enumerate(self.spans)
                if span.name == wanted.name and span.group in (None, wanted.group)
            )
            for wanted in target.spans
        ]
        if sources == list(range(len(self.spans))):
            return padded
        parts = padded.split(self.sizes, dim=1)
        return torch.cat([parts[source] for source in sources], dim=1)

    def attention_mask(self, target: Grid) -> Tensor | None:
        """Make the bool mask, broadcasting to (B, 1, S', S), of what each row of ``target`` sees.

        None if every row sees all.
        """
        pairs = [[row.may_see(span) for span in self.spans] for row in target.spans]
        allowed = None
        if not all(all(row) for row in pairs):
            shape = target.num_slots, self.num_slots
            allowed = torch.empty(shape, dtype=torch.bool, device=self.lengths[0].device)
            for part, row in zip(allowed.split(target.sizes), pairs, strict=True):
                for block, sees in zip(part.split(self.sizes, dim=1), row, strict=True):
                    block.fill_(sees)
        if self.is_full:
            return None if allowed is None else allowed[None, None]
        mask = self.mask[:, None, :]
        if allowed is not None:
            mask = allowed & mask  # (B, S', S)
        if self.has_empty_span:
            # A row that sees nothing would make all gradients NaN. So it attends to everything;
            # its output is discarded.
            mask = mask | ~mask.any(dim=-1, keepdim=True)
        return mask[:, None]


def token_grid(tokens: dict[str, Tokens]) -> tuple[Grid, Tensor]:
    """Put the tokens of several modalities side by side: a grid, and (N, D) tokens in its order."""
    parts = list(tokens.values())
    grid = Grid(
        [Span(name) for name in tokens],
        [part.longest for part in parts],
        [part.lengths for part in parts],
        [part.host_lengths for part in parts],
    )
    if len(parts) == 1:
        return grid, parts[0].values
    return grid, grid.pack(torch.cat([part.pad()[0] for part in parts], dim=1))
