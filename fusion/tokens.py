"""What data sets pass to models: tokens of variable number, packed end to end without padding.

Shapes: B clips, L tokens of the longest clip, T tokens of all clips, D width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Tokens:
    """The tokens of one modality of B clips, clip after clip.

    Attributes:
        values: (T, D) features; float16 until they are moved to the device of a model.
        lengths: (B,) int64, the number of tokens of each clip; 0 where the modality is missing.
        host_lengths: the same numbers in CPU memory. Shapes follow from them; reading them back
            from a GPU would force a synchronisation.
    """

    values: Tensor
    lengths: Tensor
    host_lengths: Tensor

    @classmethod
    def pack(cls, clips: Sequence[Tensor]) -> Tokens:
        """Put (L_i, D) sequences end to end."""
        lengths = torch.tensor([len(clip) for clip in clips], dtype=torch.int64)
        # Without the empty ones, whose type may be another: it would widen all.
        values = torch.cat([clip for clip in clips if len(clip)] or list(clips[:1]))
        return cls(values, lengths.to(values.device), lengths)

    @classmethod
    def unpad(cls, padded: Tensor, lengths: Tensor, host_lengths: Tensor | None = None) -> Tokens:
        """Drop the padding of (B, L, D) sequences of which clip i has ``lengths[i]`` tokens.

        Without ``host_lengths`` they are read back from the device.
        """
        host_lengths = lengths.cpu() if host_lengths is None else host_lengths
        total = int(host_lengths.sum())
        mask = _mask(lengths, padded.shape[1])
        return cls(pick(padded.flatten(0, 1), true_places(mask, total)), lengths, host_lengths)

    @property
    def num_clips(self) -> int:
        """B."""
        return len(self.lengths)

    @property
    def longest(self) -> int:
        """L, the largest of ``lengths``."""
        return int(self.host_lengths.max()) if len(self.host_lengths) else 0

    @property
    def present(self) -> Tensor:
        """(B,) bool: which clips have the modality."""
        return self.lengths > 0

    @property
    def mask(self) -> Tensor:
        """(B, L) bool: the places of tokens in the result of :meth:`pad`."""
        return _mask(self.lengths, self.longest)

    def replace(self, values: Tensor) -> Tokens:
        """Give every token new values: (T, any width)."""
        return dataclasses.replace(self, values=values)

    def pad(self, length: int | None = None) -> tuple[Tensor, Tensor]:
        """Lay the clips side by side, cut to ``length`` tokens (L of the longest clip by default).

        Returns (B, L, D) values, zero where there is no token, and the (B, L) bool mask of tokens.
        """
        length = self.longest if length is None else length
        room = max(length, self.longest)
        places = true_places(_mask(self.lengths, room), len(self.values))
        padded = place(self.values, places, self.num_clips * room)
        padded = padded.unflatten(0, (self.num_clips, room))[:, :length]
        return padded, _mask(self.lengths, length)

    def fill_missing(self, token: Tensor) -> Tokens:
        """Give one token (D,) to each clip that has none."""
        missing = int((self.host_lengths == 0).sum())
        if not missing:
            return self
        lengths, host_lengths = self.lengths.clamp(min=1), self.host_lengths.clamp(min=1)
        total, longest = len(self.values) + missing, int(host_lengths.max())
        filled = true_places(_mask(lengths, longest), total)
        is_real = _mask(self.lengths, longest).flatten()[filled]  # (T + missing,)
        values = place(self.values, true_places(is_real, len(self.values)), total)
        values = torch.where(is_real[:, None], values, token.to(values.dtype))
        return Tokens(values, lengths, host_lengths)

    @classmethod
    def join(cls, parts: Sequence[Tokens]) -> Tokens:
        """Put the clips of several after one another."""
        if len(parts) == 1:
            return parts[0]
        named = ("values", "lengths", "host_lengths")
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in named))

    def select(self, clips: Tensor) -> Tokens:
        """Take clips by their numbers (n,) in CPU memory, each any number of times."""
        lengths = self.host_lengths[clips]
        shifts = self.host_lengths.cumsum(0)[clips] - lengths.cumsum(0)  # from new place to old
        places = torch.arange(int(lengths.sum())) + shifts.repeat_interleave(lengths)
        values = self.values[places.to(self.values.device)]
        return Tokens(values, lengths.to(self.lengths.device), lengths)

    def pin_memory(self) -> Tokens:
        """Pin every tensor; ``host_lengths`` stay."""
        return self._map(Tensor.pin_memory)

    def part(self, start: int, stop: int) -> Tokens:
        """Keep clips ``start`` to ``stop`` - 1, without a copy."""
        first, count = (int(self.host_lengths[a:b].sum()) for a, b in ((0, start), (start, stop)))
        values = self.values[first : first + count]
        return Tokens(values, self.lengths[start:stop], self.host_lengths[start:stop])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Tokens:
        """Move to a device; ``host_lengths`` stay.

        Values in float16, as features are stored, become float32 there: they travel in half the
        bytes, and models compute with float32. Values in int32, numbered tokens of texts, stay in
        CPU memory, see :class:`fusion.models.text.tower.TextTower`.
        """
        if self.values.dtype == torch.int32:
            return dataclasses.replace(
                self, lengths=self.lengths.to(device, non_blocking=non_blocking)
            )
        moved = self._map(lambda part: part.to(device, non_blocking=non_blocking))
        return moved.replace(moved.values.float()) if moved.values.dtype == torch.half else moved

    def _map(self, move: Callable[[Tensor], Tensor]) -> Tokens:
        return Tokens(move(self.values), move(self.lengths), self.host_lengths)


@dataclasses.dataclass(frozen=True)
class Batch:
    """Some clips: the input of a model and of its loss.

    Attributes:
        ids: B names, for messages and tables.
        inputs: for each modality's name the tokens of the B clips; in a loop of one's own whatever
            the model takes, see :func:`fusion.batches.as_batch`.
        seeds: (B,) int64, one for the random numbers of each clip; None where none are drawn.
        targets: for each name, such as ``label``, a (B, …) tensor or a list of B values.
    """

    ids: tuple[str, ...]
    inputs: Any
    seeds: Tensor | None = None
    targets: Mapping[str, Tensor | list[Any]] = dataclasses.field(default_factory=dict)

    @property
    def present(self) -> dict[str, Tensor]:
        """For each modality's name, (B,) bool: which clips have it; known where it is tokens."""
        named = self.inputs.items() if isinstance(self.inputs, Mapping) else ()
        return {name: tokens.present for name, tokens in named if isinstance(tokens, Tokens)}

    def chunks(self, size: int) -> list[Batch]:
        """Split it into batches of ``size`` clips, the last one smaller, without a copy."""
        return [self.part(i, i + size) for i in range(0, len(self.ids), size)]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """Move to a device, see :meth:`Tokens.to`."""
        return self._map(lambda part: part.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """Pin every tensor; called by ``DataLoader``."""
        return self._map(lambda part: part.pin_memory())

    def part(self, start: int, stop: int) -> Batch:
        """Keep clips ``start`` to ``stop`` - 1, without a copy."""
        return Batch(
            self.ids[start:stop],
            map_nested(self.inputs, lambda x: _part(x, start, stop)),
            None if self.seeds is None else self.seeds[start:stop],
            {name: values[start:stop] for name, values in self.targets.items()},
        )

    def _map(self, move: Callable[[Any], Any]) -> Batch:
        moves = (Tokens, Tensor)
        inputs = map_nested(self.inputs, lambda x: move(x) if isinstance(x, moves) else x)
        targets = {k: move(v) if isinstance(v, Tensor) else v for k, v in self.targets.items()}
        return Batch(self.ids, inputs, None if self.seeds is None else move(self.seeds), targets)


def map_nested(value: Any, change: Callable[[Any], Any]) -> Any:
    """Change everything that mappings, tuples and lists hold, at any depth.

    A list or tuple without tensors and containers, such as of texts, is changed as a whole.
    """
    if isinstance(value, Mapping):
        return {name: map_nested(part, change) for name, part in value.items()}
    holders = (Tensor, Tokens, Mapping, list, tuple)
    if isinstance(value, list | tuple) and any(isinstance(part, holders) for part in value):
        parts = [map_nested(part, change) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return change(value)


def _part(value: Any, start: int, stop: int) -> Any:
    if isinstance(value, Tokens):
        return value.part(start, stop)
    has_rows = value.ndim > 0 if isinstance(value, Tensor) else isinstance(value, list | tuple)
    return value[start:stop] if has_rows else value  # a single value is for the whole batch


def true_places(mask: Tensor, count: int) -> Tensor:
    """Number the True elements of a mask of any shape, counted row by row: (count,) int64.

    Their ``count`` is given, because counting would synchronise with the GPU.
    """
    return torch.nonzero_static(mask.flatten(), size=count)[:, 0]


def place(values: Tensor, places: Tensor, size: int) -> Tensor:
    """Put row i of ``values`` (T, D) at ``places[i]`` of a zero (size, D) tensor; all differ."""
    if len(values) == size:
        return values  # all places in order
    return _Place.apply(values, places, size)


def pick(values: Tensor, places: Tensor) -> Tensor:
    """Take the rows at ``places``, all different and in order, out of (size, D) values."""
    if len(places) == len(values):
        return values
    return _Pick.apply(values, places)


# Indexing gives the same result. But autograd keeps the source of `index_copy`, and the backward
# pass of `index_select` adds duplicates up, which is slow and not needed here.
class _Place(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, places: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(places)
        return values.new_zeros(size, *values.shape[1:]).index_copy_(0, places, values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (places,) = ctx.saved_tensors
        return gradient.index_select(0, places), None, None


class _Pick(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.size = len(values)
        return values.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        zeros = gradient.new_zeros(ctx.size, *gradient.shape[1:])
        return zeros.index_copy_(0, places, gradient), None


def _mask(lengths: Tensor, longest: int) -> Tensor:
    return torch.arange(longest, device=lengths.device) < lengths[:, None]
