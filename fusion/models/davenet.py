"""DAVEnet: from a log-mel spectrogram to audio tokens.

Harwath et al., arXiv:1804.01452; the residual version of arXiv:1911.09602, with the two depths
that AVLnet (v1, arXiv:2006.09199) and EAO (v2) use.

Shapes: B clips, F frames (100 per second), L = F / stride tokens, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusion.models.batchnorm import GroupedBatchNorm, check_batchnorm
from fusion.models.image_encoders import IMAGE_ENCODERS
from fusion.models.text.trained import TrainedText
from fusion.models.video.frame_encoder import TSMEncoder
from fusion.parts import find_part
from fusion.tokens import Tokens

BLOCKS = {1: (2, 2, 2, 2), 2: (2, 2, 1, 1, 1, 1)}  # residual blocks per stage, by version
WIDTHS = {1: (128, 128, 256, 512, 1024), 2: (128, 128, 256, 512, 1024, 2048, 4096)}
KERNEL = 9


class ResidualBlock(nn.Module):
    """Two convolutions around a shortcut: (B, C_in, 1, F) -> (B, C_out, 1, F / stride).

    ``norm`` makes a normalisation of so many channels.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, norm: Callable[[int], nn.Module]
    ) -> None:
        super().__init__()
        self.conv1 = _conv(in_channels, out_channels, KERNEL, stride)
        self.bn1 = norm(out_channels)
        self.conv2 = _conv(out_channels, out_channels, KERNEL, 1)
        self.bn2 = norm(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            conv = _conv(in_channels, out_channels, 1, stride)
            self.shortcut = nn.Sequential(conv, norm(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``x``."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class DAVEnet(nn.Module):
    """The convolutional network; every stage halves the number of frames.

    Args:
        version: 1 gives one token per 16 frames, 2 one per 64.
        widths: C of the first layer and of each stage; the published ones if not given.
        num_bands: mel bands of the spectrogram.
        batchnorm_group: see :class:`fusion.models.batchnorm.GroupedBatchNorm`.
        batchnorm_frozen: use the running statistics in training too, as published fine-tuning does.

    Shape:
        (B, num_bands, F) -> (B, widths[-1], F / stride)

    Raises:
        ValueError: the version is unknown or the number of widths is not that of its layers.
    """

    def __init__(
        self,
        version: int = 2,
        widths: Sequence[int] | None = None,
        num_bands: int = 40,
        batchnorm_group: int | None = None,
        batchnorm_frozen: bool = False,
    ) -> None:
        super().__init__()
        check_batchnorm(batchnorm_group, batchnorm_frozen)
        norm = partial(GroupedBatchNorm, group=batchnorm_group, frozen=batchnorm_frozen)
        if version not in BLOCKS:
            raise ValueError(f"DAVEnet version must be one of {list(BLOCKS)}; got {version!r}")
        blocks, widths = BLOCKS[version], tuple(widths or WIDTHS[version])
        if len(widths) != len(blocks) + 1:
            raise ValueError(
                f"DAVEnet version {version} needs {len(blocks) + 1} widths; got {list(widths)}"
            )
        self.version, self.stride = version, 2 ** len(blocks)
        self.num_bands, self.out_dim = num_bands, widths[-1]
        self.conv1 = nn.Conv2d(1, widths[0], kernel_size=(num_bands, 1), bias=False)
        self.bn1 = norm(widths[0])
        self.stages = nn.Sequential(
            *(
                nn.Sequential(
                    ResidualBlock(narrow, wide, 2, norm),
                    *(ResidualBlock(wide, wide, 1, norm) for _ in range(count - 1)),
                )
                for narrow, wide, count in zip(widths[:-1], widths[1:], blocks, strict=True)
            )
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = math.prod(module.kernel_size) * module.out_channels
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))

    def forward(self, spectrogram: Tensor) -> Tensor:
        """Compute the tokens of padded spectrograms, channels first."""
        x = F.relu(self.bn1(self.conv1(spectrogram[:, None])))  # (B, C, 1, F)
        return self.stages(x)[:, :, 0]


class DAVEnetEncoder(nn.Module):
    """DAVEnet on spectrograms of any length: pad or cut, convolve, keep the tokens of real frames.

    Spectrograms are padded with zeros to ``num_frames``, never to the longest of the batch: the
    receptive field of a token is wider than a clip, so embeddings would depend on the batch.

    Args:
        num_frames: F, a multiple of DAVEnet's stride (16 for version 1, 64 for version 2).
        max_tokens: most tokens of a clip; no limit if not given.
        long_clips: how longer clips are shortened: ``cut``, or ``nearest``, ``max_pool``,
            ``avg_pool`` over the whole clip.
        network: the arguments of :class:`DAVEnet`.

    Shape:
        tokens with values (T, num_bands), one per frame -> tokens with values (T', out_dim)
    """

    def __init__(
        self,
        num_frames: int,
        max_tokens: int | None = None,
        long_clips: str = "cut",
        **network: Any,
    ) -> None:
        super().__init__()
        self.net = DAVEnet(**network)
        self.num_frames, self.max_tokens, self.long_clips = num_frames, max_tokens, long_clips
        self.in_dim, self.out_dim = self.net.num_bands, self.net.out_dim
        if num_frames < 1 or num_frames % self.net.stride:
            raise ValueError(
                f"num_frames ({num_frames}) must be a multiple of {self.net.stride},"
                f" the stride of DAVEnet version {self.net.version}"
            )
        if long_clips not in POOLING:
            raise ValueError(f"long_clips must be one of {list(POOLING)}; got {long_clips!r}")

    def forward(self, frames: Tokens) -> Tokens:
        """Compute the audio tokens of each clip; a clip without frames has no token."""
        padded, _ = frames.pad(self.num_frames)  # (B, F, num_bands)
        tokens, stride = self.net(padded.mT).mT, self.net.stride  # (B, L, C)
        lengths, host_lengths = (
            lengths.clamp(max=self.num_frames) for lengths in (frames.lengths, frames.host_lengths)
        )
        if self.max_tokens is not None and tokens.shape[1] > self.max_tokens:
            # As published: tokens that begin within the sound are kept, only whole ones pooled.
            tokens = self._shorten(tokens, host_lengths // stride)
        lengths, host_lengths = (
            ((count + stride - 1) // stride).clamp(max=tokens.shape[1])
            for count in (lengths, host_lengths)
        )
        return Tokens.unpad(tokens, lengths, host_lengths)

    def _shorten(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        assert self.max_tokens is not None
        pool = POOLING[self.long_clips]
        clips = []
        for clip, length in zip(tokens, lengths.tolist(), strict=True):
            if length <= self.max_tokens or pool is None:
                clips.append(clip[: self.max_tokens])
            else:
                clips.append(pool(clip[:length].T[None], self.max_tokens)[0].T)
        return torch.stack(clips)


POOLING: dict[str, Callable[[Tensor, int], Tensor] | None] = {  # (1, C, L) -> (1, C, size)
    "cut": None,
    "nearest": F.interpolate,
    "max_pool": F.adaptive_max_pool1d,
    "avg_pool": F.adaptive_avg_pool1d,
}


ENCODERS: dict[str, type[nn.Module]] = {
    "davenet": DAVEnetEncoder,
    "transformer": TrainedText,
    "tsm": TSMEncoder,
    **IMAGE_ENCODERS,
}


def check_keys(name: str, spec: Mapping[str, Any], known: Sequence[str]) -> None:
    """Check the keys that describe the modality ``name``; a ValueError names an unknown one."""
    if unknown := set(spec) - set(known):
        raise ValueError(
            f"model.modalities.{name} has an unknown key {min(unknown)!r}; choose from"
            f" {', '.join(known)}"
        )


def build_encoder(name: str, spec: Mapping[str, Any]) -> nn.Module | None:
    """Build the encoder of the modality ``name``; None if its features are tokens already.

    ``spec`` is explained in :class:`fusion.models.EAO`, the result in
    :class:`fusion.interfaces.Encoder`.

    Raises:
        ValueError: a key, a name or an argument is wrong.
    """
    check_keys(name, spec, ("dim", "encoder", "max_tokens"))
    if (spec.get("dim") is None) == ("encoder" not in spec):
        raise ValueError(f"model.modalities.{name} needs either dim or encoder")
    if "encoder" not in spec:
        return None
    arguments = dict(spec["encoder"])
    kind = arguments.pop("name", None)
    build = find_part(f"model.modalities.{name}.encoder.name", str(kind), ENCODERS)
    try:
        encoder: nn.Module = build(**arguments)
    except TypeError as error:
        raise ValueError(f"model.modalities.{name}.encoder: {error}") from error
    return encoder


def _conv(in_channels: int, out_channels: int, kernel: int, stride: int) -> nn.Conv2d:
    padding = (0, kernel // 2)
    return nn.Conv2d(in_channels, out_channels, (1, kernel), (1, stride), padding, bias=False)
