"""What a model is fed with: the text encoder of a checkpoint, and features of the right width."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fusion.builders import build_text_encoder
from fusion.checkpoint import load_text_encoder, read_config
from fusion.config import ConfigError
from fusion.models import TEXT_ENCODERS


def find_text_encoder(path: str | Path, spec: Mapping[str, Any], own_first: bool = False) -> Any:
    """Read the text encoder that belongs to a checkpoint.

    Args:
        path: of the checkpoint.
        spec: the ``text_encoder`` section of a config. If it names a file of the kind of vectors
            that the model was trained with, this file is taken: the checkpoint has no copy.
        own_first: take that file only if the one that the checkpoint names does not exist.

    Raises:
        ValueError: there is none.
    """
    name = read_config(path)["text_encoder"].get("name")
    fits = not TEXT_ENCODERS[name].learns and spec.get("name") == name and spec.get("path")
    if own_first or not fits:
        try:
            return load_text_encoder(path)
        except ValueError:
            if not fits:
                raise
    return build_text_encoder(spec, sentences=(), seed=0)


def check_widths(model: Mapping[str, Any], clip: Mapping[str, Any]) -> None:
    """Check that a clip's features are as wide as the model takes them.

    Args:
        model: the ``model`` section of a config.
        clip: an item of a data set.

    Raises:
        ConfigError: a modality has another width, or the data lack it.
    """
    for name, spec in model.get("modalities", {}).items():
        if spec is None:
            continue
        if name not in clip:
            known = ", ".join(key for key in clip if key != "id")
            raise ConfigError(f"the data has no modality {name!r} of model.modalities, but {known}")
        width = clip[name].shape[-1]
        if "dim" in spec and spec["dim"] != width:
            raise ConfigError(
                f"model.modalities.{name}.dim is {spec['dim']}, but the data are {width} wide"
            )
