"""Dropout whose choices belong to the clip: neither its batch nor its chunk or rank matters.

Shapes: B clips, N tokens of all clips, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fusion.tokens import Tokens, true_places

# splitmix64 (Steele et al., OOPSLA 2014), as signed numbers: torch has no unsigned product.
GOLDEN, FIRST, SECOND = (
    number - 2**64 for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)
DRAWS = 4  # of each hash, of 16 bits each
STEPS = 2**16  # probabilities are multiples of 1 / STEPS
TILE = 2**18, 2**24  # values at a time on a CPU, whose cache they fit into, and on a GPU


class ClipDropout(nn.Module):
    """In training, set each value of tokens to zero with a probability, and scale up the others.

    It depends on the clip alone, not on its batch, chunk or rank: each choice is a hash of the
    clip's seed and of the place of the value within the clip. Between the passes it keeps a byte
    for each value, as torch's dropout does.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        if not 0 <= probability < 1:
            raise ValueError(f"dropout must be at least 0 and below 1; got {probability}")
        self.probability = probability

    def forward(self, tokens: Tokens, seeds: Tensor | None = None, stream: int = 0) -> Tokens:
        """Drop values of the tokens of B clips, by (B,) int64 seeds, which torch draws if None.

        The stream makes different choices for the modalities of a clip, which have the same seed.
        """
        if not self.training or not self.probability:
            return tokens
        values = tokens.values
        if seeds is None:
            seeds = torch.randint(2**62, (tokens.num_clips,), device=values.device)
        position = true_places(tokens.mask, len(values))  # clip * L + place within the clip
        longest = max(1, tokens.longest)
        rows = _hash(_hash(seeds + stream)[position // longest] + position % longest)
        hashes = -(-values.shape[1] // DRAWS)
        columns = _hash(torch.arange(hashes, device=values.device) * GOLDEN)
        return tokens.replace(_Drop.apply(values, rows, columns, self.probability))


class _Drop(torch.autograd.Function):
    """Dropout of (N, D) values by (N,) and (D / 4,) random numbers of rows and of columns."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, rows: Tensor, columns: Tensor, probability: float
    ) -> Tensor:
        least = min(round(probability * STEPS), STEPS - 1)
        kept = torch.empty(values.shape, dtype=torch.bool, device=values.device)
        size = max(1, TILE[values.is_cuda] // max(1, values.shape[1]))
        for mine, own in zip(kept.split(size), rows.split(size), strict=True):
            drawn = (own[:, None] ^ columns).mul_(FIRST)
            halves = drawn.view(torch.int32)  # the lower bits of a product depend on few others
            halves[:, ::2].bitwise_xor_(halves[:, 1::2])
            draws = drawn.view(torch.int16)[:, : values.shape[1]]
            torch.ge(draws, least - STEPS // 2, out=mine)
        ctx.save_for_backward(kept)
        ctx.scale = STEPS / (STEPS - least)
        return _scale(values, kept, ctx.scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (kept,) = ctx.saved_tensors
        return _scale(gradient, kept, ctx.scale), None, None, None


def _scale(values: Tensor, kept: Tensor, scale: float) -> Tensor:
    """Scale the values that are kept, and set the others to zero."""
    if values.is_cuda:  # one kernel
        return torch.ops.aten.native_dropout_backward(values, kept, scale)
    return torch.where(kept, values, values.new_zeros(())).mul_(scale)


def _hash(numbers: Tensor) -> Tensor:
    """Hash int64 numbers: near ones become unrelated ones."""
    numbers = (numbers ^ _shift(numbers, 30)) * FIRST
    numbers = (numbers ^ _shift(numbers, 27)) * SECOND
    return numbers ^ _shift(numbers, 31)


def _shift(numbers: Tensor, bits: int) -> Tensor:
    return (numbers >> bits) & (2 ** (64 - bits) - 1)  # logical: does not copy the sign
