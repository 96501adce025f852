"""TSM: a two-dimensional network that sees motion, as some of its channels are shifted in time.

Lin, Gan and Han, arXiv:1811.08383; at scale "Training Kinetics in 15 Minutes", arXiv:1910.00932.

Shapes: B clips, T frames of the longest clip, N real frames of all clips, K classes, H and W pixels
of a frame, C channels.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fusion.models.batchnorm import check_batchnorm, no_update
from fusion.models.dropout import ClipDropout
from fusion.models.video.frame_networks import FrameNetwork
from fusion.models.video.non_local import NonLocal, places_of, width_of
from fusion.models.video.shift import (
    OnlineFrames,
    PackedFrames,
    Shift,
    ShiftedConv2d,
    Time,
    check_shift,
    in_time,
    shift,
    temporal_pool,
)
from fusion.tokens import Tokens

__all__ = ["TSM", "Stream", "shift", "temporal_pool"]

PLACES = ("blockres", "block")
DEEP = 23  # blocks of a stage from which on every second one is shifted
POOLED_AFTER = 0  # the stage after which temporal_pool halves the frames


class TSM(nn.Module):
    """Classify clips, or give a vector for each of their frames.

    Args:
        network: see :class:`.frame_networks.FrameNetwork`.
        num_classes: K; None: there is no classifier.
        shift_div: of C channels, C / ``shift_div`` come from the next frame and as many from the
            one before.
        shift_place: ``blockres``, before the first convolution of a block, inside its shortcut;
            or ``block``, before the whole block (ablation).
        every_second_block: shift before every second block only. None: as published, if a stage
            has 23 blocks or more (ResNet-101 on), and not with ``shift_place: block``.
        causal: a frame sees only those before it, so films can be streamed, see :meth:`stream`.
        shift: False: the plain network, which sees each frame alone (TSN, arXiv:1608.00859).
        non_local: attention over all frames after some blocks, see :mod:`.non_local`.
        temporal_pool: halve the number of frames after the first stage.
        dropout: probability of a frame's feature to become zero before the classifier.
        pretrained: begin with the weights of ImageNet that timm downloads.
        batchnorm_group: clips whose statistics are taken together, see
            :class:`fusion.models.batchnorm.GroupedBatchNorm`; None: all of a call.
        batchnorm_frozen: use the running statistics in training too.
        checkpointing: keep the activations between blocks only, and compute the others again.

    Attributes:
        num_features: width of a frame's vector.
        num_classes: K or None.

    Frames are RGB: uint8 from 0 to 255, or floating and already normalised, see
    :meth:`normalise`. Padding frames are not computed, and nothing depends on them.

    Raises:
        ValueError: the arguments contradict one another, or there is no such network.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: str | Mapping[str, Any] = "resnet50",
        num_classes: int | None = None,
        *,
        shift_div: int = 8,
        shift_place: str = "blockres",
        every_second_block: bool | None = None,
        causal: bool = False,
        shift: bool = True,
        non_local: bool = False,
        temporal_pool: bool = False,
        dropout: float = 0.5,
        pretrained: bool = False,
        batchnorm_group: int | None = None,
        batchnorm_frozen: bool = False,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        check_batchnorm(batchnorm_group, batchnorm_frozen)
        check_shift(shift_div, causal)
        if shift_place not in PLACES:
            raise ValueError(f"shift_place must be one of {list(PLACES)}; got {shift_place!r}")
        if causal and (non_local or temporal_pool):
            both = "non_local" if non_local else "temporal_pool"
            raise ValueError(f"causal and {both} contradict each other: it sees later frames")
        self.net = FrameNetwork(network, pretrained, batchnorm_group, batchnorm_frozen)
        self.num_features, self.num_classes = self.net.num_features, num_classes
        self.causal, self.temporal_pool, self.checkpointing = causal, temporal_pool, checkpointing
        self.shifts = nn.ModuleDict()  # before blocks, by names such as 0_2; for shift_place block
        self.non_locals = nn.ModuleDict()  # after blocks
        if shift:
            self._add_shifts(shift_div, shift_place, every_second_block)
        if non_local:
            self._add_non_locals(batchnorm_group, batchnorm_frozen)
        self.dropout = ClipDropout(dropout)
        self.classifier = (
            None if num_classes is None else _classifier(self.num_features, num_classes)
        )
        for name in ("mean", "std"):
            values = torch.tensor(getattr(self.net, name))[:, None, None]
            self.register_buffer(name, values, persistent=False)

    def forward(
        self,
        frames: Tensor,
        mask: Tensor | None = None,
        seeds: Tensor | None = None,
        rows: Sequence[int] | None = None,
    ) -> Tensor:
        """Classify clips: the mean of the logits of their frames (the published consensus).

        Args:
            frames: (B, T, 3, H, W).
            mask: (B, T) bool, where there are frames; all, if not given.
            seeds: (B,) int64, for the dropout of each clip; drawn by torch if not given.
            rows: the number of frames of each clip, where it is known: reading it back from the
                device would make the CPU wait.

        Returns:
            (B, K) logits; zeros for a clip without frames. Without classifier (B, num_features).
        """
        logits, clips = self._logits(frames, mask, seeds, rows)
        count = clips.mask.sum(dim=1, keepdim=True).clamp(min=1)
        return clips.unpack(logits).sum(dim=1) / count

    def frame_logits(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """Classify each frame: (B, T, K); arguments as for :meth:`forward`, zeros at padding."""
        logits, clips = self._logits(frames, mask, None)
        return clips.unpack(logits)

    def features(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """Compute a vector for each frame: the mean over space, (B, T, num_features).

        Zeros at padding; with ``temporal_pool`` for every second frame. Arguments as for
        :meth:`forward`.
        """
        clips = PackedFrames.of(frames, mask)
        vectors, clips = self.encode(clips.pack(frames), clips)
        return clips.unpack(vectors)

    def stream(self) -> Stream:
        """Begin to classify a film frame by frame; ValueError: the network is not causal."""
        return Stream(self)

    def normalise(self, frames: Tensor) -> Tensor:
        """Normalise uint8 frames (…, 3, H, W) by the mean and deviation of the network's colours.

        Floating frames stay as they are.
        """
        if frames.is_floating_point():
            return frames
        return (frames.to(self.mean.dtype) / 255 - self.mean) / self.std

    def encode(self, frames: Tensor, clips: PackedFrames) -> tuple[Tensor, PackedFrames]:
        """Compute the vectors (N, num_features) of packed frames; return which frames have one."""
        x = self._run(self.net.stem, self.normalise(frames), clips)
        for number, stage in enumerate(self.net.stages()):
            for i, block in enumerate(stage):
                x = self._run(self._with_shift(f"{number}_{i}", block), x, clips)
                if f"{number}_{i}" in self.non_locals:
                    x = self._run(self.non_locals[f"{number}_{i}"], x, clips, clips)
            if self.temporal_pool and number == POOLED_AFTER:
                x, clips = clips.temporal_pool(x)
        return self._run(self.net.head, x, clips), clips

    def _with_shift(self, name: str, block: nn.Module) -> Callable[..., Tensor]:
        return (lambda x: block(self.shifts[name](x))) if name in self.shifts else block

    def _logits(
        self,
        frames: Tensor,
        mask: Tensor | None,
        seeds: Tensor | None,
        rows: Sequence[int] | None = None,
    ) -> tuple[Tensor, PackedFrames]:
        clips = PackedFrames.of(frames, mask, rows)
        vectors, clips = self.encode(clips.pack(frames), clips)
        return self.classify(vectors, clips, seeds), clips

    def classify(self, vectors: Tensor, clips: PackedFrames, seeds: Tensor | None = None) -> Tensor:
        """Compute the logits of packed vectors: (N, num_features) -> (N, K)."""
        if self.classifier is None:
            return vectors
        lengths = clips.mask.sum(dim=1)
        tokens = Tokens(vectors, lengths, torch.tensor(list(clips.rows), dtype=torch.int64))
        logits: Tensor = self.classifier(self.dropout(tokens, seeds).values)
        return logits

    def _run(self, part: Callable[..., Tensor], x: Tensor, frames: Time, *more: Any) -> Tensor:
        def run(x: Tensor) -> Tensor:
            with in_time(frames):
                return part(x, *more)

        if not self.checkpointing or not torch.is_grad_enabled():
            return run(x)
        how: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
        # What is computed a second time must not move statistics a second time.
        how["context_fn"] = lambda: (contextlib.nullcontext(), no_update(self))
        y: Tensor = checkpoint(run, x, **how)
        return y

    def _add_shifts(self, shift_div: int, shift_place: str, every_second: bool | None) -> None:
        stages = self.net.stages()
        if every_second is None:
            every_second = shift_place == "blockres" and max(map(len, stages)) >= DEEP
        for number, stage in enumerate(stages):
            for i, block in enumerate(stage):
                if (every_second and i % 2) or not self.net.may_shift(block):
                    continue
                if shift_place == "block":
                    self.shifts[f"{number}_{i}"] = Shift(shift_div, self.causal)
                    continue
                first = self.net.first_conv
                conv = ShiftedConv2d(getattr(block, first), shift_div, self.causal)
                setattr(block, first, conv)

    def _add_non_locals(self, group: int | None, frozen: bool) -> None:
        if not self.net.is_resnet:
            raise ValueError("non_local: true needs a ResNet")
        stages = self.net.stages()
        for stage, i in places_of(stages):
            self.non_locals[f"{stage}_{i}"] = NonLocal(width_of(stages[stage]), group, frozen)


class Stream:
    """Classifies a film frame by frame, as the frames come, in constant memory.

    Each step gives what the causal network gives for that frame when it sees the film as a whole.
    The model should be in evaluation mode.

    Attributes:
        seconds: how long the last step took; None before the first.
        features: (B, num_features), the vectors of the last frame; None before the first.

    Raises:
        ValueError: the model is not causal.
    """

    def __init__(self, model: TSM) -> None:
        if not model.causal:
            raise ValueError(
                "only a causal network can be streamed, as others see later frames; train one with"
                " model.causal=true"
            )
        self.model, self.frames = model, OnlineFrames()
        self.seconds: float | None = None
        self.features: Tensor | None = None

    @torch.no_grad()
    def step(self, frame: Tensor) -> Tensor:
        """Classify the next frame (B, 3, H, W) of B films: (B, K), or without classifier (B, C).

        ValueError: frames have become more, fewer, or of another size.
        """
        begun = time.perf_counter()
        if self.frames.size not in (None, frame.shape):
            raise ValueError(
                f"frames of a stream must keep their shape {list(self.frames.size or ())}; got"
                f" {list(frame.shape)}; begin another one by stream()"
            )
        self.frames.size, self.frames.rows = frame.shape, [1] * len(frame)
        self.features, _ = self.model.encode(frame, self.frames)  # type: ignore[arg-type]
        classifier = self.model.classifier
        logits = self.features if classifier is None else classifier(self.features)
        if frame.is_cuda:
            torch.cuda.synchronize(frame.device)
        self.seconds = time.perf_counter() - begun
        return logits


def _classifier(width: int, num_classes: int) -> nn.Linear:
    layer = nn.Linear(width, num_classes)
    nn.init.normal_(layer.weight, std=0.001)  # as published
    nn.init.zeros_(layer.bias)
    return layer
