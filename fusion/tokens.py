"""Tokens of variable number, packed end to end without padding: between data and models.

Shapes: B clips, L tokens of the longest clip, T tokens of all clips, D width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Tokens:
    """The tokens of one modality of B clips, clip after clip.

    Attributes:
        values: (T, D) features.
        lengths: (B,) int64, the number of tokens of each clip; 0 where the modality is missing.
        longest: L, the largest of ``lengths``, known without asking the device.
    """

    values: Tensor
    lengths: Tensor
    longest: int

    @classmethod
    def pack(cls, clips: Sequence[Tensor]) -> Tokens:
        """Put (L_i, D) sequences end to end."""
        lengths = [len(clip) for clip in clips]
        return cls(torch.cat(list(clips)), torch.tensor(lengths), max(lengths, default=0))

    @classmethod
    def unpad(cls, padded: Tensor, lengths: Tensor) -> Tokens:
        """Drop the padding of (B, L, D) sequences of which clip i has ``lengths[i]`` tokens."""
        return cls(padded[_mask(lengths, padded.shape[1])], lengths, int(lengths.max()))

    @property
    def num_clips(self) -> int:
        """B."""
        return len(self.lengths)

    @property
    def present(self) -> Tensor:
        """(B,) bool: which clips have the modality."""
        return self.lengths > 0

    @property
    def clip(self) -> Tensor:
        """(T,) int64: the clip that each token belongs to."""
        clips = torch.arange(self.num_clips, device=self.lengths.device)
        return clips.repeat_interleave(self.lengths, output_size=len(self.values))

    @property
    def position(self) -> Tensor:
        """(T,) int64: the place of each token in its clip, from 0."""
        first = self.lengths.cumsum(0) - self.lengths
        return torch.arange(len(self.values), device=self.lengths.device) - first[self.clip]

    def replace(self, values: Tensor) -> Tokens:
        """Give every token new values: (T, any width)."""
        return dataclasses.replace(self, values=values)

    def pad(self, length: int | None = None) -> tuple[Tensor, Tensor]:
        """Lay the clips side by side.

        Args:
            length: L of the result; the longest clip's if not given. Later tokens are cut off.

        Returns:
            (B, L, D) values, zero where there is no token, and the (B, L) bool mask of tokens.
        """
        length = self.longest if length is None else length
        shape = (self.num_clips, max(length, self.longest), self.values.shape[-1])
        padded = self.values.new_zeros(shape).index_put((self.clip, self.position), self.values)[
            :, :length
        ]
        return padded, _mask(self.lengths, length)

    def select(self, clips: Sequence[int]) -> Tokens:
        """Keep some clips, in the given order."""
        parts = self.values.split(self.lengths.tolist())
        return Tokens.pack([parts[clip] for clip in clips])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Tokens:
        """Move to a device."""
        return Tokens(
            self.values.to(device, non_blocking=non_blocking),
            self.lengths.to(device, non_blocking=non_blocking),
            self.longest,
        )

    def pin_memory(self) -> Tokens:
        """Move to memory from which a GPU copies without waiting; called by ``DataLoader``."""
        return Tokens(self.values.pin_memory(), self.lengths.pin_memory(), self.longest)


@dataclasses.dataclass(frozen=True)
class Batch:
    """Some clips, as a model and a loss see them.

    Attributes:
        ids: B names, for messages and tables.
        inputs: for each modality's name the tokens of the B clips.
    """

    ids: tuple[str, ...]
    inputs: Mapping[str, Tokens]

    @property
    def present(self) -> dict[str, Tensor]:
        """For each modality's name, (B,) bool: which clips have it."""
        return {name: tokens.present for name, tokens in self.inputs.items()}

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """Move to a device."""
        moved = {name: tokens.to(device, non_blocking) for name, tokens in self.inputs.items()}
        return Batch(self.ids, moved)

    def pin_memory(self) -> Batch:
        """Pin every tensor; called by ``DataLoader``."""
        return Batch(self.ids, {name: tokens.pin_memory() for name, tokens in self.inputs.items()})


def _mask(lengths: Tensor, longest: int) -> Tensor:
    return torch.arange(longest, device=lengths.device) < lengths[:, None]
