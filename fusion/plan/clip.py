"""The clip that a plan counts with: as long as a config lets it be, on the meta device.

Shapes: L tokens of width D, T frames of H x W pixels.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

import torch

from fusion.builders import raw_video_of
from fusion.config import ConfigError
from fusion.data.datasets import DATASETS
from fusion.data.demo.orders.plan import CLASSES, SIZES
from fusion.data.features.readers import AUDIO
from fusion.data.labelled import LABELLED_SETS
from fusion.data.labelled.film import check_frames, frame_size
from fusion.data.media.shown import Size
from fusion.tokens import Tokens

WORDS = 20  # of a text, the most that text encoders of word vectors keep
ROWS_2D, ROWS_3D = 1.0, 1.5  # features a second, as published; half of the width each
HOWTO100M = 1_166_000  # films, about: its list of films is named 1166
FILM_SECONDS, FILM_KBPS = 10.0, 600.0  # of a film of one class, as of Kinetics at 340 x 256


@dataclasses.dataclass(frozen=True)
class Part:
    """One modality of a clip: L tokens of a shape."""

    count: int
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32


@dataclasses.dataclass(frozen=True)
class Clip:
    """A clip of a config.

    Attributes:
        parts: by modality.
        stored_bytes: that are read for it.
        decodes: whether it is decoded from a film.
    """

    parts: Mapping[str, Part]
    stored_bytes: float
    decodes: bool = False

    def batch(self, clips: int, device: str = "meta") -> dict[str, Tokens]:
        """Make the inputs of some clips, without values."""
        return {name: _tokens(part, clips, device) for name, part in self.parts.items()}


def _tokens(part: Part, clips: int, device: str) -> Tokens:
    values = torch.empty(clips * part.count, *part.shape, dtype=part.dtype, device=device)
    lengths = torch.full((clips,), part.count)
    return Tokens(values, lengths.to(device), lengths)


def clip_of(config: Mapping[str, Any], words: int = WORDS) -> Clip:
    """Describe the longest clip of a config; ``words`` are those of its text.

    Raises:
        ConfigError: the config leaves a length or a width to the data, or has a modality of which
            neither is known.
    """
    data = _with_defaults(config["data"])
    specs = config["model"].get("modalities")
    if specs is None:
        return _film(data)
    raw = raw_video_of(config)
    parts, stored, decodes = {}, 0.0, False
    for name, spec in specs.items():
        if spec is None:
            continue
        if raw is not None and name == raw.modality:
            parts[name], decodes = _frames(raw.frames, raw.size), True
            stored += _size(parts[name])  # decoded once and kept
            continue
        parts[name] = _features(name, spec, data, words)
        stored += _stored(name, parts[name], data)
    return Clip(parts, stored, decodes=False if raw else decodes)


def clips_of(config: Mapping[str, Any]) -> tuple[int | None, int]:
    """Return the clips of an epoch and those of validation, where the data are known without them.

    None, and 0: they are not.
    """
    data = _with_defaults(config["data"])
    if data.get("name") == "howto100m":
        return HOWTO100M * data["clips_per_video"], 0
    if data.get("name") == "order_classes":
        given = data["training_films"] or SIZES["train"]
        return given, min(given, SIZES["validation"])
    return None, 0


def with_classes(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Fill in the number of classes, where the data are known without them.

    Raises:
        ConfigError: they are not.
    """
    model = config["model"]
    if "num_classes" not in model or model["num_classes"] is not None:
        return config
    if config["data"].get("name") != "order_classes":
        raise _left_open("model.num_classes")
    return {**config, "model": {**model, "num_classes": len(CLASSES)}}


def _features(name: str, spec: Mapping[str, Any], data: Mapping[str, Any], words: int) -> Part:
    encoder, width = spec.get("encoder") or {}, spec.get("dim")
    if encoder.get("name") == "davenet":
        if (frames := encoder.get("num_frames")) is None:
            raise _left_open(f"model.modalities.{name}.encoder.num_frames")
        return Part(frames, (40,))
    if encoder or name not in ("text", "video", "audio"):
        kind = encoder.get("name", "none")
        raise ConfigError(
            f"model.modalities.{name} (encoder {kind}) cannot be planned: the length of its tokens"
            " is not known"
        )
    if width is None:
        raise _left_open(f"model.modalities.{name}.dim")
    if name == "text":
        return Part(words, (width,))
    length = data.get("max_video_tokens" if name == "video" else "max_audio_frames")
    if length is None:
        raise _left_open("data.max_video_tokens" if name == "video" else "data.max_audio_frames")
    return Part(max(1, length), (width,))


def _stored(name: str, part: Part, data: Mapping[str, Any]) -> float:
    """Return the bytes of a clip's features in a store, float16; texts are in memory."""
    if name == "text":
        return 0.0
    frames = data.get("max_audio_frames") or 0
    if name == "audio":
        return 2.0 * min(part.count, frames or part.count) * part.shape[0]
    seconds = frames / AUDIO.per_second if frames else part.count / ROWS_3D
    rows = seconds * (ROWS_2D + ROWS_3D) + 2  # one more of each: a window begins within a row
    return 2.0 * rows * part.shape[0] / 2


def _film(data: Mapping[str, Any]) -> Clip:
    """Describe a film of one class."""
    if data.get("frame_size") is None or data.get("frames") is None:
        raise ConfigError("this model and data cannot be planned: the clip has no known size")
    size = frame_size("data.frame_size", data["frame_size"])
    part = _frames(check_frames(data["frames"]), size)
    if data.get("cache", None) is False:
        return Clip({"video": part}, FILM_SECONDS * FILM_KBPS * 1000 / 8, decodes=True)
    return Clip({"video": part}, _size(part))


def _frames(count: int, size: Size) -> Part:
    return Part(count, (3, size.height, size.width), torch.uint8)


def _size(part: Part) -> float:
    values = part.count
    for side in part.shape:
        values *= side
    return float(values * part.dtype.itemsize)


def _with_defaults(data: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in what the data set takes where the config says nothing."""
    made: Any = {**DATASETS, **LABELLED_SETS}.get(data.get("name", ""))
    parameters = inspect.signature(made).parameters if made else {}
    defaults = {
        name: parameter.default
        for name, parameter in parameters.items()
        if parameter.default is not parameter.empty
    }
    return defaults | dict(data)


def _left_open(key: str) -> ConfigError:
    return ConfigError(f"{key} is left to the data, and a plan reads none; add {key}=NUMBER")
