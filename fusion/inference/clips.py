"""From what a user gives to the input of a network, made as the data set of the training made it.

Shapes: L tokens of width D.
"""

from __future__ import annotations

import contextlib
import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fusion.checkpoint import CheckpointError
from fusion.data.captions.table import Caption
from fusion.data.datasets.clips import Clips
from fusion.data.features.readers import VIDEO, seconds_of
from fusion.data.labelled.raw_video import KEY as RAW
from fusion.data.media.log_mel import spectrogram_seconds
from fusion.inference.features import FilmFeatures, ItemFeatures, Reading
from fusion.inference.items import Item
from fusion.modalities import ORDER

logger = logging.getLogger(__name__)

_ONLY = "0"  # name of the only item of a reader


class ClipMaker:
    """Makes clips of items.

    Args:
        modalities: names of those that the model embeds.
        specs: ``model.modalities`` of its config.
        widths: of the features of a modality, where it is known.
        text_encoder: maps a text to (L, D); None: the model reads no texts.
        recipe: how features are made, see :meth:`.Source.recipe`; None: not known.
        device: of the networks that make features.
        weights: see :class:`.FilmFeatures`.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        specs: Mapping[str, Any],
        widths: Mapping[str, int],
        text_encoder: Any,
        recipe: Mapping[str, Any] | None,
        device: torch.device,
        weights: Mapping[str, str | Path] | None,
    ) -> None:
        self.modalities, self.specs, self.text_encoder = tuple(modalities), specs, text_encoder
        self.widths, self.recipe = widths, recipe
        self._device, self._weights = device, weights
        self._made: FilmFeatures | None = None
        self._read: dict[str, Tensor] = {}  # the texts of some items

    @property
    def of_films(self) -> list[str]:
        """Names of the modalities that are made of a film."""
        fields = (self.recipe or {}).get("features", {})
        given = {"video", "audio", (fields.get(RAW) or {}).get("modality")}
        return [m for m in self.modalities if m in given or fields.get(m)]

    @property
    def reads_frames(self) -> bool:
        """Whether the model was trained with ``data.raw_video``."""
        return bool((self.recipe or {}).get("features", {}).get(RAW))

    def seconds(self, item: Item) -> float:
        """Return for how long an item has picture or sound."""
        reader = self._reader(item)
        return self._seconds(item, reader) if reader else 0.0

    def _seconds(self, item: Item, reader: ItemFeatures) -> float:
        seconds, path = seconds_of(reader, _ONLY), self._film_of_frames(item)
        if path is None or self.films.frames is None:
            return seconds
        return max(seconds, self.films.frames.seconds(path))

    def _film_of_frames(self, item: Item) -> Path | None:
        """Return the film whose frames an item has; None: it has none."""
        frames = self.films.frames if self.reads_frames else None
        part = item.parts.get(frames.modality) if frames else None
        return part if isinstance(part, Path) else None

    @contextlib.contextmanager
    def reading(self, film: Path, reading: Reading) -> Iterator[None]:
        """Let a film of a stranger be read by another process; its features are computed now."""
        films = self.films
        films.readings[film] = reading
        try:
            films.rows(film)
            yield
        finally:
            films.readings.pop(film, None)

    @property
    def longest(self) -> float:
        """Seconds of the longest clip that is not cut off; infinity if nothing limits it."""
        return min(self._limits(), default=math.inf)

    def read_texts(self, items: Sequence[Item]) -> None:
        """Encode the texts of some items, whose clips are made next, together."""
        encode: Any = getattr(self.text_encoder, "encode", None)
        parts = [item.parts.get("text") for item in items]
        texts = list(dict.fromkeys(text for text in parts if isinstance(text, str)))
        if encode is not None:
            self._read = dict(zip(texts, encode(texts, self._device), strict=True))

    def clip(self, item: Item, start: float, end: float) -> dict[str, Tensor]:
        """Make the input of a clip: (L, D) float32 by modality, for what the item has.

        ``end`` infinity: to the end of its media files.

        Raises:
            ValueError: no word of its text is known, a file cannot be read, finished tokens have
                another width than in training, or the recipe of the model's features is not known.
        """
        clip: dict[str, Tensor] = {}
        if (reader := self._reader(item)) is not None:
            assert self.recipe is not None
            most = self.recipe["max_video_tokens"], self.recipe["max_audio_frames"]
            self._warn_of_cut(item, reader, start, end)
            stop = end if math.isfinite(end) or not start else self._seconds(item, reader)
            if stop > start:
                caption = Caption(_ONLY, start, stop, "")
                way = self.recipe["long_clips"]
                clips = Clips(None, [caption], reader, None, *most, long_clips=way)
                clips.further = [name for name in self.of_films if name not in ORDER]
                clips.max_tokens = self.recipe.get("max_tokens", {})
                made = clips[0]
                clip = {name: made[name] for name in self.of_films if name in made}
                if (path := self._film_of_frames(item)) and (frames := self.films.frames):
                    last = stop if math.isfinite(stop) else None
                    clip[frames.modality] = frames.read(path, start, last)
        for name, part in item.parts.items():
            if name == "text" and isinstance(part, str):
                clip[name] = self._words(item, part)
            elif isinstance(part, Tensor):
                clip[name] = self._tokens(item, name, part)
        return clip

    def _tokens(self, item: Item, name: str, tokens: Tensor) -> Tensor:
        width = self.widths.get(name, tokens.shape[1])
        if tokens.shape[1] != width:
            raise ValueError(
                f"{item.name}: {name} has tokens of width {tokens.shape[1]}, and the model takes"
                f" (L, {width}); give features as those of its training"
            )
        return tokens.detach().cpu().float()

    def _words(self, item: Item, text: str) -> Tensor:
        if self.text_encoder is None:
            raise ValueError(
                f"{item.name}: the model has no text encoder; give its text as finished tokens"
                " (L, D)"
            )
        words: Tensor = self._read[text] if text in self._read else self.text_encoder(text)
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
        films = self.films
        features: dict[str, Tensor] = {}
        for name, file in files.items():
            if films.frames and name == films.frames.modality:
                continue
            fields = VIDEO if name == "video" else (name,)
            if films.fields.keys().isdisjoint(fields):
                raise ValueError(
                    f"{item.name}: {name} cannot be made from a file; give finished tokens (L, D)"
                )
            rows = films.rows(file)
            features |= {field: rows[field] for field in fields if field in rows}
        return ItemFeatures(_ONLY, films.fields, features)

    @property
    def films(self) -> FilmFeatures:
        """Computes the features of films.

        Raises:
            CheckpointError: it is not known how they were made.
        """
        if self._made is None:
            if self.recipe is None:
                raise CheckpointError(
                    "the checkpoint does not say how the features of its videos were made (it was"
                    " trained with published features, or by an older version); give finished"
                    " tokens (L, D), or train it again on a store of fusion extract"
                )
            self._made = FilmFeatures(self.recipe["features"], self._device, self._weights)
        return self._made

    def _limits(self) -> list[float]:
        """Return the seconds that fit into the network's input of pictures and of sound."""
        if self.recipe is None:
            return []
        fields, limits = self.films.fields, []
        motion = fields.get("3d") or fields.get("2d")
        if "video" in self.modalities and motion and self.recipe["max_video_tokens"]:
            limits.append(self.recipe["max_video_tokens"] / motion.per_second)
        if "audio" in self.modalities and "audio" in fields:
            encoder, frames = (
                self.specs["audio"].get("encoder", {}),
                self.recipe["max_audio_frames"],
            )
            limits.append(spectrogram_seconds(min(frames, encoder.get("num_frames", frames))))
        return limits

    def _warn_of_cut(self, item: Item, reader: ItemFeatures, start: float, end: float) -> None:
        """Warn if the end of a clip is beyond what the model takes."""
        length = min(end, self._seconds(item, reader)) - start
        longest = self.longest
        if length > longest * 1.01 + 0.3:  # a token more or less is no loss
            warnings.warn(
                f"{item.name}: a clip of {length:.1f} s is longer than the model takes"
                f" ({longest:.1f} s), so its end is cut off; give a shorter part, or windows",
                stacklevel=6,
            )


def input_widths(network: nn.Module, specs: Mapping[str, Any]) -> dict[str, int]:
    """Return how wide the features of a network's modalities are, where it is known."""
    encoders: Any = getattr(network, "encoders", {})
    dims = {name: spec.get("dim") for name, spec in specs.items() if spec is not None}
    dims |= {name: encoders[name].in_dim for name in dims if name in encoders}
    dims |= getattr(network, "in_dims", {})  # of AVLnet
    return {name: dim for name, dim in dims.items() if dim is not None}


def fill(clips: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """Give each clip (0, D) of what others have and it lacks, in the same order for all."""
    empty = {name: values[:0] for clip in clips for name, values in clip.items() if name != "id"}
    return [{"id": clip["id"], **empty, **clip} for clip in clips]
