"""What the sections of a config build, checked before anything slow begins."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fusion.config import choose, merge
from fusion.data.datasets import DATASETS
from fusion.losses import LOSSES
from fusion.models import MODELS, TEXT_ENCODERS, WordVectors
from fusion.models.language_model_files import default_text_encoder, language_model_width


def check_config(config: Mapping[str, Any]) -> dict[str, Callable[..., Any]]:
    """Check the sections ``data``, ``text_encoder``, ``model`` and ``loss`` of a config.

    Returns:
        For each of them the function that builds its object.

    Raises:
        ConfigError: a name, a key or a value is wrong.
    """
    spec = config["text_encoder"]
    return {
        "data": choose("data", config["data"], DATASETS),
        "text_encoder": _choose_text_encoder(spec) if spec else lambda **given: None,
        "model": choose("model", config["model"], MODELS),
        "loss": choose("loss", config["loss"], LOSSES, given=["modalities"]),
    }


def settle_text_encoder(config: Mapping[str, Any]) -> dict[str, Any]:
    """Give a config its text encoder and, as width of the model's texts, that of the encoder.

    ``text_encoder: {name: auto, model: …}`` becomes what :func:`.default_text_encoder` finds. A
    config without it, and without a language model, stays as it is.
    """
    spec = config["text_encoder"] or {}
    is_auto = spec.get("name") == "auto"
    if is_auto:
        spec = choose("text_encoder", spec, {"auto": default_text_encoder})()
    if spec.get("name") == "hf" and spec.get("model"):
        width = language_model_width(spec["model"])
    elif is_auto:
        width = inspect.signature(WordVectors.train).parameters["dim"].default
    else:
        return dict(config)
    modalities = config["model"].get("modalities") or {}
    if "dim" in (modalities.get("text") or {}):
        text = {"modalities": {"text": {"dim": width}}}
        return {**config, "text_encoder": spec, "model": merge(config["model"], text)}
    return {**config, "text_encoder": spec}


def build_text_encoder(spec: Mapping[str, Any], sentences: Iterable[str], seed: int) -> Any:
    """Build what a ``text_encoder`` section says; some learn from the sentences.

    Raises:
        ConfigError: a name, a key or a value is wrong.
        ValueError: a file that it names cannot be used.
    """
    return _choose_text_encoder(spec)(sentences=sentences, seed=seed)


def _choose_text_encoder(spec: Mapping[str, Any]) -> Callable[..., Any]:
    if spec.get("name") == "auto":  # of a config that was not settled
        find = choose("text_encoder", spec, {"auto": default_text_encoder})
        return lambda sentences, seed: build_text_encoder(find(), sentences, seed)
    builders = {
        n: encoder.train if encoder.learns else encoder for n, encoder in TEXT_ENCODERS.items()
    }
    build = choose("text_encoder", spec, builders, given=["sentences", "seed"])
    learns = TEXT_ENCODERS[spec["name"]].learns
    return build if learns else lambda sentences, seed: build()
