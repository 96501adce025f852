"""Classify films: frames, cut and scaled, go through TSM (arXiv:1811.08383).

Shapes: B films, M clips of a film, T frames of a clip, H x W pixels, K classes.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fusion.models.frame_transforms import SCALES, crop_for_test, crop_for_training
from fusion.models.tsm import TSM
from fusion.tokens import Tokens

CLASSES = "classes"  # name of the output
CROPS = (1, 3)


class VideoClassifier(nn.Module):
    """Score K classes for each film.

    In training each film is a clip, cut at random by its seed. In evaluation the middle is cut out;
    within :meth:`viewing` the scores of several clips and crops are averaged.

    Args:
        network: see :class:`fusion.models.tsm.TSM`, as all arguments that are not listed here.
        num_classes: K; None: a config leaves it to the data.
        crop_size: pixels, the side of what the network sees.
        crop_scales: sides of crops in training, as shares of the shorter side of a frame.
        flip: mirror half of the clips in training; not where left and right matter.
        pretrained: a new run begins with the weights of ImageNet that timm downloads.

    Raises:
        ValueError: the arguments contradict one another; the message says which.
    """

    modalities = ("video",)

    def __init__(
        self,
        network: str | dict[str, Any] = "resnet50",
        num_classes: int | None = None,
        crop_size: int = 224,
        crop_scales: Sequence[float] = SCALES,
        flip: bool = False,
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
        if crop_size < 1 or not crop_scales or not all(0 < scale <= 1 for scale in crop_scales):
            raise ValueError(
                f"model.crop_size must be pixels, and model.crop_scales shares from 0 to 1; got"
                f" {crop_size} and {list(crop_scales)}"
            )
        self.crop_size, self.crop_scales, self.flip = crop_size, tuple(crop_scales), flip
        self.pretrained, self._views = pretrained, (1, 1)
        self._make = functools.partial(
            TSM,
            network,
            num_classes,
            shift_div=shift_div,
            shift_place=shift_place,
            every_second_block=every_second_block,
            causal=causal,
            shift=shift,
            non_local=non_local,
            temporal_pool=temporal_pool,
            dropout=dropout,
            batchnorm_group=batchnorm_group,
            batchnorm_frozen=batchnorm_frozen,
            checkpointing=checkpointing,
        )
        self.tsm = self._make()

    def start_pretrained(self) -> None:
        """Load the published weights of the network; the classifier stays random.

        ValueError: they cannot be downloaded.
        """
        classifier = self.tsm.classifier
        self.tsm = self._make(pretrained=True)
        self.tsm.classifier = classifier

    def forward(
        self, inputs: Mapping[str, Tokens], seeds: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Score the classes of B films.

        Args:
            inputs: ``video``, (T, 3, H, W) uint8 frames of each film; none where it could not be
                read.
            seeds: (B,) int64, for the crops and the dropout; drawn by torch if not given.

        Returns:
            ``classes``: (B, K) logits; zeros for a film without frames.
        """
        frames, mask = self._frames(inputs["video"])
        present = mask.any(dim=1)
        if self.training:
            seeds = torch.randint(2**62, (len(frames),)) if seeds is None else seeds
            cropped = crop_for_training(frames, self.crop_size, self.crop_scales, self.flip, seeds)
            rows = inputs["video"].host_lengths.tolist()
            logits = self.tsm(cropped, mask, seeds.to(frames.device), rows)
        else:
            logits = self._average_views(frames, mask, inputs["video"].host_lengths)
        return {CLASSES: logits * present[:, None]}

    def over_time(self, inputs: Mapping[str, Tokens]) -> Tensor:
        """Score the classes after each frame of a clip: the mean over the frames so far, (B, T, K).

        The last one is the answer. Of a causal network these are the answers while it watches.
        """
        frames, mask = self._frames(inputs["video"])
        (cropped,) = crop_for_test(frames, self.crop_size, 1)
        logits = self.tsm.frame_logits(cropped, mask)
        seen = torch.arange(1, logits.shape[1] + 1, device=logits.device)
        return logits.cumsum(dim=1) / seen[:, None]

    @contextlib.contextmanager
    def viewing(self, clips: int, crops: int) -> Iterator[None]:
        """Within the block a film has M clips, one after another, each seen in so many crops."""
        before, self._views = self._views, (clips, crops)
        try:
            yield
        finally:
            self._views = before

    def _average_views(self, frames: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
        clips, crops = self._views
        b, most = len(frames), frames.shape[1] // clips
        rows = (lengths[:, None] - most * torch.arange(clips)).clamp(0, most).flatten().tolist()
        frames, mask = (x.unflatten(1, (clips, -1)).flatten(0, 1) for x in (frames, mask))
        views = crop_for_test(frames, self.crop_size, crops)
        logits = torch.stack(
            [self.tsm(view, mask, None, rows) for view in views]
        )  # (crops, B M, K)
        return logits.unflatten(1, (b, clips)).mean(dim=(0, 2))

    def _frames(self, films: Tokens) -> tuple[Tensor, Tensor]:
        """Lay the films side by side: (B, M T, 3, H, W), and where there are frames."""
        length = max(films.longest, self._views[0])
        return films.pad(length)
