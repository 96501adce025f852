"""What a data set offers to the main job, whatever it is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor
from torch.utils.data import Dataset

from fusion.data.captions.table import Caption
from fusion.data.datasets.protocols import Protocol as Counting


class ClipSet(Dataset[dict[str, Any]]):
    """The clips of one split: items of ``id`` and, for each modality, (L, D) features.

    A clip with several captions is as many items, which ``shows`` puts together.

    Attributes:
        captions: for each caption its clip, a stretch of a video.
        folder: what the names of the videos are relative to; None if there are no media files.
        whole: for each item the caption that it is a part of, where clips are cut: their
            embeddings are averaged; None where every item is whole.
    """

    captions: Sequence[Caption]
    folder: Path | None
    whole: Sequence[int] | None = None

    @property
    def shows(self) -> Sequence[int]:
        """For each caption the number of its clip: those of one window of a video share it."""
        numbers: dict[tuple[str, float, float], int] = {}
        return [numbers.setdefault((c.video, c.start, c.end), len(numbers)) for c in self.captions]

    def __len__(self) -> int:
        """Number of items."""
        return len(self.captions if self.whole is None else self.whole)


class Source(Protocol):
    """A data set."""

    @property
    def splits(self) -> list[str]:
        """Names of the splits that there are, of ``train``, ``validation``, ``test``."""

    def extract(self) -> None:
        """Do once what takes long, such as computing features."""

    def texts(self, split: str) -> list[str]:
        """The texts of a split, to learn words from."""

    def clips(self, split: str, text_encoder: Callable[[str], Tensor]) -> ClipSet:
        """Read a split."""

    def protocol(self, split: str) -> Counting:
        """How a table on a split is counted."""

    def describe(self, split: str) -> str:
        """Say in a few words what the clips of a split are."""

    def ceiling(self, split: str) -> Mapping[str, Any] | None:
        """What can be reached at best in each direction, None if nobody knows."""
