"""Branches of AVLnet and MCN, which make one vector of a modality: pool over time, then gate.

The classes in :mod:`fusion.models.avlnet` explain the arguments. Each branch maps tokens with
values (T, D) to its pooled features, which MCN reconstructs, and its embeddings (B, E).

Shapes: B clips, T tokens of all clips, L tokens of the longest clip, D width, E embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusion.models.davenet import DAVEnetEncoder, build_encoder
from fusion.models.transformer import GatedProjection
from fusion.tokens import Tokens

Pooled = tuple[Tensor, Tensor]


class VideoBranch(nn.Module):
    """The maximum over time of the video tokens (B, D), gated.

    Clips with fewer than ``max_tokens`` tokens are padded with zeros: their maximum is never
    negative.
    """

    def __init__(
        self, dim: int, embedding_dim: int, normalize: bool = False, max_tokens: int | None = None
    ) -> None:
        super().__init__()
        self.in_dim, self.pooled_dim = dim, dim
        self.normalize, self.max_tokens = normalize, max_tokens
        self.gate = GatedProjection(dim, embedding_dim)

    def forward(self, tokens: Tokens) -> Pooled:
        """Pool and gate; the pooled features of a clip without tokens are zeros."""
        pooled = max_over_time(tokens, lowest=None)
        if self.max_tokens is not None:
            short = tokens.lengths < self.max_tokens
            pooled = torch.where(short[:, None], pooled.clamp(min=0), pooled)
        if self.normalize:
            pooled = F.normalize(pooled, dim=-1)
        return pooled, self.gate(pooled)


class TextBranch(nn.Module):
    """A projection of each word, rectified, and the maximum over words (B, E), gated.

    As published, a sentence is padded with zero vectors to ``max_words`` before the projection, and
    the maximum is over the padding too. All padding becomes the projection's bias, computed once.
    """

    def __init__(self, dim: int, embedding_dim: int, max_words: int, gated: bool) -> None:
        super().__init__()
        self.in_dim, self.pooled_dim, self.max_words = dim, embedding_dim, max_words
        self.project = nn.Linear(dim, embedding_dim)
        self.gate = GatedProjection(embedding_dim, embedding_dim) if gated else nn.Identity()

    def forward(self, tokens: Tokens) -> Pooled:
        """Project, pool and gate."""
        words = tokens.replace(F.relu(self.project(tokens.values)))
        pooled = max_over_time(words, lowest=0.0)
        padding = F.relu(self.project.bias).to(pooled.dtype)
        short = tokens.lengths < self.max_words
        pooled = torch.where(short[:, None], torch.maximum(pooled, padding), pooled)
        return pooled, self.gate(pooled)


class AudioBranch(nn.Module):
    """The mean over time of the audio tokens (B, D), gated at their width, projected.

    The gate comes before the projection because it is narrower there, as published.
    """

    def __init__(
        self, spec: Mapping[str, Any], embedding_dim: int, gated: bool, mean_over_padding: bool
    ) -> None:
        super().__init__()
        self.encoder = build_encoder("audio", spec)
        self.mean_over_padding = mean_over_padding
        width = spec["dim"] if self.encoder is None else int(self.encoder.out_dim)  # type: ignore[arg-type]
        self.in_dim = width if self.encoder is None else int(self.encoder.in_dim)  # type: ignore[arg-type]
        self.pooled_dim = width
        self.gate = GatedProjection(width, width) if gated else nn.Identity()
        self.project = nn.Linear(width, embedding_dim)

    def forward(self, tokens: Tokens) -> Pooled:
        """Encode, pool and project; a clip without sound counts as silence."""
        if isinstance(self.encoder, DAVEnetEncoder):
            pooled = self._pool_davenet(self.encoder, tokens)
        else:
            tokens = tokens if self.encoder is None else self.encoder(tokens)
            padded, mask = tokens.pad(max(1, tokens.longest))
            pooled = padded.sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)
        return pooled, self.project(self.gate(pooled))

    def _pool_davenet(self, encoder: DAVEnetEncoder, frames: Tokens) -> Tensor:
        padded, _ = frames.pad(encoder.num_frames)  # (B, frames, bands)
        tokens = encoder.net(padded.mT)  # (B, D, L)
        if self.training and self.mean_over_padding:
            return tokens.mean(dim=2)
        # As published: tokens that are sound to their end, and at least one.
        stride, longest = encoder.net.stride, tokens.shape[2]
        lengths = frames.lengths.div(stride, rounding_mode="floor").clamp(1, longest)
        mask = torch.arange(longest, device=tokens.device) < lengths[:, None]  # (B, L)
        return (tokens @ mask[..., None].to(tokens.dtype))[..., 0] / lengths[:, None]


class TextAudioGate(nn.Module):
    """One embedding of text and audio: the sum of their projections, gated (AVLnet-Text-Fused)."""

    def __init__(self, in_dim: int, embedding_dim: int) -> None:
        super().__init__()
        self.project_text = nn.Linear(in_dim, embedding_dim)
        self.project_audio = nn.Linear(in_dim, embedding_dim)
        self.gate = nn.Linear(embedding_dim, embedding_dim)

    def forward(self, text: Tensor, audio: Tensor) -> Tensor:
        """Join two (B, in_dim) to (B, E)."""
        y = self.project_audio(audio) + self.project_text(text)
        return y * self.gate(y).sigmoid()


def max_over_time(tokens: Tokens, lowest: float | None) -> Tensor:
    """Take the maximum over the tokens of each clip: (T, D) -> (B, D); zeros without tokens.

    ``lowest`` is a lower bound of all values, if there is one.
    """
    if bool((tokens.host_lengths == 1).all()):
        return tokens.values
    padded, mask = tokens.pad(max(1, tokens.longest))
    if lowest != 0.0:
        padded = padded.masked_fill(~mask[..., None], torch.finfo(padded.dtype).min)
    pooled = padded.amax(dim=1)
    return pooled if lowest == 0.0 else pooled.masked_fill(~tokens.present[:, None], 0)
