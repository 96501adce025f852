"""How the pre-trained parts of a model that answers questions begin, and how fast they learn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fusion.config import ConfigError
from fusion.data.features.problems import warn
from fusion.extract.backbone import Source
from fusion.extract.networks import timm_network
from fusion.models.image_encoders import PRETRAINED, TimmImage

PRETRAINED_RATE = 1e-5  # of parts that begin with published weights; others: trainer.learning_rate


def start_images(part: TimmImage) -> None:
    """Give an image encoder the weights that its config names; on the meta device do nothing.

    Raises:
        ConfigError: the file is missing or of another network, or cannot be downloaded.
    """
    if part.weights is None or next(part.parameters()).is_meta:
        return
    key = "model.modalities.image.encoder.weights"
    path = None if part.weights == PRETRAINED else Path(part.weights).expanduser()
    if path is not None and not path.is_file():
        raise ConfigError(f"{key}: there is no {path}; name a file, or null for random weights")
    try:
        network = timm_network(part.name, Source("image", path))
    except ValueError as error:
        # What a file of features would need is not what a config needs.
        said, _, further = str(error).partition(", and pass the file")
        way = f", and name it: {key}=FILE" if further else ""
        raise ConfigError(f"{key}={part.weights}: {said}{way}") from None
    part.net.load_state_dict(network.state_dict())


def fill_part_rates(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Let pre-trained parts that are trained learn more slowly, unless the config says how fast."""
    trainer = config["trainer"]
    if trainer.get("part_learning_rates") is not None:
        return config
    rates = {}
    for name, spec in config["model"]["modalities"].items():
        encoder = (spec or {}).get("encoder") or {}
        learns_on = encoder.get("name") == "transformer" or (
            encoder.get("name") == "timm" and encoder.get("train") and _has_weights(encoder)
        )
        if learns_on:
            rates[f"eao.encoders.{name}"] = PRETRAINED_RATE
    if not rates:
        return config
    warn(
        f"learning rates: {trainer['learning_rate']:g}, and {PRETRAINED_RATE:g} for the pre-trained"
        f" {', '.join(rates)}; trainer.part_learning_rates sets others"
    )
    return {**config, "trainer": {**trainer, "part_learning_rates": rates}}


def _has_weights(encoder: Mapping[str, Any]) -> bool:
    return encoder.get("weights", PRETRAINED) is not None
