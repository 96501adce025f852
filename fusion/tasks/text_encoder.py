"""The text encoder of a checkpoint, or of the same kind from the file that a config names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fusion.builders import build_text_encoder, learns
from fusion.checkpoint import Trust, load_text_encoder, read_config
from fusion.models import TEXT_ENCODERS
from fusion.models.text.encoders import WordVectorFile


def find_text_encoder(path: Path, spec: Mapping[str, Any], own_first: bool, trust: Trust) -> Any:
    """Read the text encoder of a checkpoint, or the file of the same kind that the config names.

    The config's file goes first unless ``own_first``: a checkpoint has no copy of word vectors.
    """
    name = (read_config(path, trust)["text_encoder"] or {}).get("name", "")
    encoder: Any = TEXT_ENCODERS.get(name)
    place = getattr(encoder, "place", "path")
    fits = spec.get("name") == name and not learns(spec) and spec.get(place)
    if own_first or not fits:
        try:
            return load_text_encoder(path, trust)
        except ValueError:
            if not fits:
                raise
    if getattr(encoder, "has_digest", False):
        return load_text_encoder(path, trust, spec[encoder.place])
    if encoder is WordVectorFile:  # a config may leave out what cut the sentences of the training
        spec = {"tokenizer": encoder.tokenizer_of(path), **spec}
    return build_text_encoder(spec, sentences=(), seed=0)
