"""Take modalities away from clips: at random in training, or one from all clips of a test."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fusion.data.datasets.dataset import ChangedClips, ClipSet
from fusion.parts import nearest

KEY = "drop_modalities"  # of the section data
KEPT = 2  # modalities that a training clip keeps: a contrastive loss needs a pair


class DroppedModalities(ChangedClips):
    """Training clips that lose modalities at random, other ones in each epoch.

    After :meth:`set_epoch` a clip loses each modality with its own probability, independently. A
    clip keeps two of the modalities that it has: where the draws leave fewer, it gets back those
    whose draws were the closest to keeping them, relative to their probabilities.

    Args:
        clips: the clips; before :meth:`set_epoch` they are as they are.
        shares: for each modality the probability; a modality that is not named is never lost.
        modalities: what the model reads; others do not count among the two that are kept.

    Raises:
        ValueError: a name is unknown, or a probability is not at least 0 and below 1.
    """

    def __init__(
        self, clips: ClipSet, shares: Mapping[str, float], modalities: Sequence[str]
    ) -> None:
        super().__init__(clips)
        check_shares(shares, modalities)
        self.shares, self.modalities = shares, modalities
        self._seed: int | None = None

    def set_epoch(self, seed: int) -> None:
        """Drop modalities at random from now on, as the seed and the number of the clip say."""
        super().set_epoch(seed)
        self._seed = seed

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read an item; a modality that it loses has length 0."""
        item = self.clips[index]
        if self._seed is None:
            return item
        has = [name for name in self.modalities if len(item[name])]
        lost = lose(self.shares, has, self._seed, index)
        return item | {name: item[name][:0] for name in lost}


def lose(shares: Mapping[str, float], has: Sequence[str], seed: int, index: int) -> list[str]:
    """Draw which of its modalities a clip loses.

    A modality has random numbers of its own, so the draws do not depend on the other ``shares``.
    """
    closeness = {}  # of those that are lost: below 1, uniform
    for name in has:
        if share := shares.get(name, 0):
            stream = zlib.crc32(f"{KEY}.{name}".encode())
            draw = np.random.default_rng([seed, index, stream]).random()
            if draw < share:
                closeness[name] = draw / share
    lost = sorted(closeness, key=closeness.__getitem__)
    return lost[: max(0, len(has) - KEPT)]


class WithoutModality(ChangedClips):
    """Clips of which none has one modality."""

    def __init__(self, clips: ClipSet, modality: str) -> None:
        super().__init__(clips)
        self.modality = modality

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read an item; the modality has length 0."""
        item = self.clips[index]
        return item | {self.modality: item[self.modality][:0]}

    def caption(self, index: int) -> dict[str, Any]:
        """Read the caption of an item, without its text if that is what is taken away."""
        item = self.clips.caption(index)
        return {k: v[:0] if k == self.modality else v for k, v in item.items()}


def check_shares(shares: Mapping[str, Any], modalities: Sequence[str]) -> None:
    """Check ``data.drop_modalities``; without ``modalities`` the names are not checked.

    Raises:
        ValueError: a name is unknown, or a probability is not at least 0 and below 1.
    """
    for name, share in shares.items():
        if modalities and name not in modalities:
            raise ValueError(
                f"data.{KEY}.{name} is no modality of the model{nearest(str(name), modalities)}"
            )
        is_number = isinstance(share, int | float) and not isinstance(share, bool)
        if not is_number or not 0 <= share < 1:
            raise ValueError(
                f"data.{KEY}.{name} is the probability that a training clip loses the modality, at"
                f" least 0 and below 1, such as 0.2; got {share!r}"
            )
