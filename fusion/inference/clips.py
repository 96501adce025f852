"""From what a user gives to the input of a network, made as the data set of the training made it.

Shapes: L tokens of width D.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fusion.data.captions.table import Caption
from fusion.data.datasets.clips import Clips
from fusion.data.features.readers import VIDEO, seconds_of
from fusion.data.media.log_mel import spectrogram_seconds
from fusion.inference.features import FeatureError, FilmFeatures, ItemFeatures
from fusion.inference.items import Item
from fusion.modalities import ORDER

logger = logging.getLogger(__name__)

_ONLY = "0"  # name of the only item of a reader


class ClipMaker:
    """Makes clips of items.

    Args:
        modalities: names of those that the model embeds.
        specs: ``model.modalities`` of its config: the width of its features, its encoder.
        text_encoder: maps a text to (L, D); None: the model reads no texts.
        recipe: how features are made, see :meth:`.Source.recipe`; None: not known.
        device: of the networks that make features.
        weights: see :class:`.FilmFeatures`.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        specs: Mapping[str, Any],
        text_encoder: Any,
        recipe: Mapping[str, Any] | None,
        device: torch.device,
        weights: Mapping[str, str | Path] | None,
    ) -> None:
        self.modalities, self.specs, self.text_encoder = tuple(modalities), specs, text_encoder
        self.recipe, self._device, self._weights = recipe, device, weights
        self._made: FilmFeatures | None = None

    @property
    def of_films(self) -> list[str]:
        """Names of the modalities that are made of a film."""
        fields = (self.recipe or {}).get("features", {})
        return [m for m in self.modalities if m in ("video", "audio") or fields.get(m)]

    def seconds(self, item: Item) -> float:
        """Return for how long an item has picture or sound."""
        reader = self._reader(item)
        return seconds_of(reader, _ONLY) if reader else 0.0

    def clip(self, item: Item, start: float, end: float) -> dict[str, Tensor]:
        """Make the input of a clip: (L, D) float32 by modality, for what the item has.

        ``end`` infinity: to the end of its media files.

        Raises:
            ValueError: no word of its text is known, a file cannot be read, or the recipe of the
                model's features is not known.
        """
        clip: dict[str, Tensor] = {}
        if (reader := self._reader(item)) is not None:
            assert self.recipe is not None
            most = self.recipe["max_video_tokens"], self.recipe["max_audio_frames"]
            self._warn_of_cut(item, reader, start, end, *most)
            stop = end if math.isfinite(end) or not start else seconds_of(reader, _ONLY)
            if stop > start:
                caption = Caption(_ONLY, start, stop, "")
                way = self.recipe["long_clips"]
                clips = Clips(None, [caption], reader, None, *most, long_clips=way)
                clips.further = [name for name in self.of_films if name not in ORDER]
                clips.max_tokens = self.recipe.get("max_tokens", {})
                made = clips[0]
                clip = {name: made[name] for name in self.of_films if name in made}
        for name, part in item.parts.items():
            if name == "text" and isinstance(part, str):
                clip[name] = self._words(item, part)
            elif isinstance(part, Tensor):
                clip[name] = part.detach().cpu().float()
        return clip

    def _words(self, item: Item, text: str) -> Tensor:
        words: Tensor = self.text_encoder(text)
        if not text.strip():
            return words[:0]
        if not len(words):
            raise ValueError(
                f"{item.name}: the model knows no word of {text!r}; use words of its training"
                " captions"
            )
        find: Any = getattr(self.text_encoder, "unknown_words", None)
        if unknown := find(text) if find else ():
            logger.warning("%r: unknown words are left out: %s", text, ", ".join(unknown))
        return words

    def _reader(self, item: Item) -> ItemFeatures | None:
        """Compute the features of an item's media files; None: it has no file."""
        files = {name: part for name, part in item.parts.items() if isinstance(part, Path)}
        if not files:
            return None
        films = self._films
        features: dict[str, Tensor] = {}
        for name, file in files.items():
            fields = VIDEO if name == "video" else (name,)
            if films.fields.keys().isdisjoint(fields):
                raise ValueError(
                    f"{item.name}: {name} cannot be made from a file; give finished tokens (L, D)"
                )
            rows = films.rows(file)
            features |= {field: rows[field] for field in fields if field in rows}
        return ItemFeatures(_ONLY, films.fields, features)

    @property
    def _films(self) -> FilmFeatures:
        if self._made is None:
            if self.recipe is None:
                raise FeatureError(
                    "the checkpoint does not say how the features of its videos were made (it was"
                    " trained with published features, or by an older version); give finished"
                    " tokens (L, D), or train it again on a store of tools/extract.py"
                )
            self._made = FilmFeatures(self.recipe["features"], self._device, self._weights)
        return self._made

    def _warn_of_cut(
        self, item: Item, reader: ItemFeatures, start: float, end: float, tokens: int, frames: int
    ) -> None:
        """Warn if the end of a clip is beyond what the model takes."""
        stop = min(end, seconds_of(reader, _ONLY))
        limits = []
        motion = reader.fields.get("3d") or reader.fields.get("2d")
        shown = any(reader.rows(_ONLY, field) for field in VIDEO if field in reader.fields)
        if motion and tokens and shown:
            limits.append((tokens + 1) / motion.per_second)
        if "audio" in reader.fields and reader.rows(_ONLY, "audio"):
            encoder = self.specs["audio"].get("encoder", {})
            limits.append(spectrogram_seconds(min(frames, encoder.get("num_frames", frames)) + 1))
        if limits and stop - start > min(limits) + 1e-6:
            warnings.warn(
                f"{item.name}: a clip of {stop - start:.1f} s is longer than the model takes"
                f" ({min(limits):.1f} s), so its end is cut off; give start and end, or windows",
                stacklevel=6,
            )
