"""Encoders of single modalities, by the names that configs use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from fusion.models.davenet import DAVEnetEncoder

ENCODERS: dict[str, type[nn.Module]] = {"davenet": DAVEnetEncoder}


def build_encoder(name: str, spec: Mapping[str, Any]) -> nn.Module | None:
    """Build the encoder of a modality's features.

    Args:
        name: of the modality, for messages.
        spec: either ``dim`` or ``encoder``, see :class:`fusion.models.EAO`.

    Returns:
        The encoder, which has ``in_dim`` and ``out_dim``; None if the features are tokens already.

    Raises:
        ValueError: a key, a name or an argument is wrong.
    """
    spec = dict(spec)
    if unknown := set(spec) - {"dim", "encoder", "max_tokens"}:
        raise ValueError(
            f"model.modalities.{name} has an unknown key {min(unknown)!r};"
            " choose from dim, encoder, max_tokens"
        )
    if ("dim" in spec) == ("encoder" in spec):
        raise ValueError(f"model.modalities.{name} needs either dim or encoder")
    if "dim" in spec:
        return None
    arguments = dict(spec["encoder"])
    kind = arguments.pop("name", None)
    if kind not in ENCODERS:
        raise ValueError(
            f"model.modalities.{name}.encoder.name: unknown {kind!r}; choose from {list(ENCODERS)}"
        )
    try:
        return ENCODERS[kind](**arguments)
    except TypeError as error:
        raise ValueError(f"model.modalities.{name}.encoder: {error}") from None
