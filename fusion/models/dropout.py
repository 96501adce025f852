"""Dropout that depends on the clip alone, not on its batch, chunk or rank.

Plain dropout draws from a stream of numbers, so its choices change with the chunks, the rank, or
when the same clips are embedded again. Here each choice is a hash of the clip's seed and of the
place of the value within the clip.

Shapes: B clips, T tokens of all clips, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fusion.tokens import Tokens, true_places

# splitmix64 (Steele et al., OOPSLA 2014), as signed numbers: torch has no unsigned product.
GOLDEN, FIRST, SECOND = (
    number - 2**64 for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)
BITS = 24  # of each hash that are used


class ClipDropout(nn.Module):
    """In training, set each value of tokens to zero with a probability, and scale up the others."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        if not 0 <= probability < 1:
            raise ValueError(f"dropout must be at least 0 and below 1; got {probability}")
        self.probability = probability

    def forward(self, tokens: Tokens, seeds: Tensor | None = None, stream: int = 0) -> Tokens:
        """Drop values of the tokens (T, D) of B clips, by their seeds (B,) int64.

        Torch draws the seeds if they are not given. The stream makes different choices for the
        modalities of a clip, which have the same seed.
        """
        if not self.training or not self.probability:
            return tokens
        values = tokens.values
        if seeds is None:
            seeds = torch.randint(2**62, (tokens.num_clips,), device=values.device)
        position = true_places(tokens.mask, len(values))  # clip * L + place within the clip
        longest = max(1, tokens.longest)
        rows = _hash(_hash(seeds + stream)[position // longest] + position % longest)
        columns = torch.arange(values.shape[1], device=values.device) * GOLDEN
        drawn = _hash(rows[:, None] + columns) & (2**BITS - 1)  # (T, D)
        kept = drawn >= self.probability * 2**BITS
        return tokens.replace(values * kept / (1 - self.probability))


def _hash(numbers: Tensor) -> Tensor:
    """Hash int64 numbers: near ones become unrelated ones."""
    numbers = (numbers ^ _shift(numbers, 30)) * FIRST
    numbers = (numbers ^ _shift(numbers, 27)) * SECOND
    return numbers ^ _shift(numbers, 31)


def _shift(numbers: Tensor, bits: int) -> Tensor:
    return (numbers >> bits) & (2 ** (64 - bits) - 1)  # logical: does not copy the sign
