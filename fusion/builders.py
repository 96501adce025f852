"""What the sections of a config build, checked before anything slow begins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fusion.config import choose, merge
from fusion.data.datasets import DATASETS
from fusion.losses import LOSSES
from fusion.models import MODELS, TEXT_ENCODERS


def check_config(config: Mapping[str, Any]) -> dict[str, Callable[..., Any]]:
    """Check the sections ``data``, ``text_encoder``, ``model`` and ``loss`` of a config.

    Returns:
        For each of them the function that builds its object; widths that are left to the data are
        1 until they are known.

    Raises:
        ConfigError: a name, a key or a value is wrong.
    """
    spec = config["text_encoder"]
    return {
        "data": choose("data", config["data"], DATASETS),
        "text_encoder": _choose_text_encoder(spec) if spec else lambda **given: None,
        "model": choose("model", _with_placeholders(config["model"]), MODELS),
        "loss": choose("loss", config["loss"], LOSSES, given=["modalities"]),
    }


def left_to_the_data(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List the modalities whose ``dim`` or ``num_frames`` a ``model`` section does not say."""
    missing = []
    for name, spec in (model.get("modalities") or {}).items():
        encoder = (spec or {}).get("encoder")
        if spec is not None and encoder is None and spec.get("dim") is None:
            missing.append((name, "dim"))
        elif encoder is not None and encoder.get("num_frames", 0) is None:
            missing.append((name, "num_frames"))
    return missing


def _with_placeholders(model: Mapping[str, Any]) -> Mapping[str, Any]:
    """Fill in values that only the data will tell, so that a config can be checked before."""
    changes: dict[str, Any] = {
        name: {"dim": 1} if key == "dim" else {"encoder": {"num_frames": 64}}
        for name, key in left_to_the_data(model)
    }
    return merge(model, {"modalities": changes}) if changes else model


def build_text_encoder(spec: Mapping[str, Any], sentences: Iterable[str], seed: int) -> Any:
    """Build what a ``text_encoder`` section says; some learn from the sentences.

    Raises:
        ConfigError: a name, a key or a value is wrong.
        ValueError: a file that it names cannot be used.
    """
    return _choose_text_encoder(spec)(sentences=sentences, seed=seed)


def _choose_text_encoder(spec: Mapping[str, Any]) -> Callable[..., Any]:
    builders = {
        n: encoder.train if encoder.learns else encoder for n, encoder in TEXT_ENCODERS.items()
    }
    build = choose("text_encoder", spec, builders, given=["sentences", "seed"])
    learns = TEXT_ENCODERS[spec["name"]].learns
    return build if learns else lambda sentences, seed: build()
