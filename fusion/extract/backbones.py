"""Backbones by name."""

from __future__ import annotations

from fusion.extract.backbone import NONE, Backbone, Source
from fusion.extract.networks_2d import BACKBONES_2D, build_timm
from fusion.extract.networks_3d import BACKBONES_3D


def build_backbone(name: str, source: Source) -> Backbone | None:
    """Build a backbone; None for ``none``.

    Args:
        name: for the field ``2d`` one of ``BACKBONES_2D`` or any model of timm, for ``3d`` one of
            ``BACKBONES_3D``.
        source: of its weights.

    Raises:
        ValueError: the name is unknown, a package is missing, or the weights are; one line that
            says what to do.
    """
    if name == NONE:
        return None
    if source.field == "2d":
        return BACKBONES_2D.get(name, build_timm)(name, source)
    if name not in BACKBONES_3D:
        raise ValueError(
            f"--features-3d: unknown {name}; choose from {', '.join([*BACKBONES_3D, NONE])}"
        )
    return BACKBONES_3D[name](name, source)
