"""What the sections of a config build, checked before anything slow begins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fusion.config import ConfigError, choose
from fusion.data.datasets import DATASETS
from fusion.losses import LOSSES
from fusion.models import MODELS, TEXT_ENCODERS
from fusion.parts import find_part


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


def build_text_encoder(spec: Mapping[str, Any], sentences: Iterable[str], seed: int) -> Any:
    """Build what a ``text_encoder`` section says; some learn from the sentences.

    Raises:
        ConfigError: a name, a key or a value is wrong.
        ValueError: a file that it names cannot be used.
    """
    return _choose_text_encoder(spec)(sentences=sentences, seed=seed)


def learns(spec: Mapping[str, Any]) -> bool:
    """Return whether the encoder of a ``text_encoder`` section learns from sentences."""
    kind = find_part("text_encoder.name", str(spec.get("name")), TEXT_ENCODERS)
    return bool(getattr(kind, "learns", False))


def _choose_text_encoder(spec: Mapping[str, Any]) -> Callable[..., Any]:
    given = ["sentences", "seed"]
    try:
        is_learning = learns(spec)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if not is_learning:
        build = choose("text_encoder", spec, TEXT_ENCODERS, given)
        return lambda sentences, seed: build()
    kind = find_part("text_encoder.name", spec["name"], TEXT_ENCODERS)
    return choose("text_encoder", spec, {spec["name"]: kind.train}, given)
