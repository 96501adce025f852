"""Networks for the features of single pictures: any model of timm, by its name.

Appearance is looked at once a second, as in the features of HowTo100M.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from fusion.extract.backbone import NONE, Backbone, Source, import_package
from fusion.extract.sampling import Sampling
from fusion.extract.weights import (
    blots,
    hub_address,
    hub_file,
    is_offline,
    load_backbone_weights,
    random_network,
    reachable,
    without_hub,
)

BACKBONES_2D: dict[str, Callable[[str, Source], Backbone]] = {}  # looked up before timm's names

_PER_SECOND = 1
_SCALERS = ("bilinear", "bicubic", "lanczos")  # that FFmpeg calls by the same name
_WIDE = 16 / 9  # of the picture that shows whether a network takes any size


def build_timm(name: str, source: Source) -> Backbone:
    """Build a model of timm.

    A network that takes pictures of any size gets the whole of each picture, its shorter side
    scaled by FFmpeg as in the published features; mean and standard deviation are those of its own
    config. Any other gets the middle of the picture, scaled as its config says.

    Raises:
        ValueError: no such model, no weights, or not a network of single features.
    """
    timm = import_package("timm")
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), 3) or ["resnet50"]
        raise ValueError(
            f"--features-2d: {name} is no model of timm; did you mean {' or '.join(near)}?"
            f" ({NONE}: no 2D features)"
        )
    network = _network(timm, name, source)
    config: dict[str, Any] = timm.data.resolve_model_data_config(network)
    side, dim = config["input_size"][-1], _width(network, *config["input_size"][1:])
    if dim is None:
        raise ValueError(f"--features-2d: {name} gives no feature of a picture; choose another one")
    if _width(network, side, int(side * _WIDE)) == dim:
        sampling = Sampling(_PER_SECOND, side)
    else:
        sampling = _fixed_size(side, config)
    mean, std = ([255 * value for value in config[key]] for key in ("mean", "std"))
    return Backbone(_full_name(network), network, sampling, dim, mean, std, source)


def _fixed_size(side: int, config: Mapping[str, Any]) -> Sampling:
    shorter = int(side / config["crop_pct"])
    resize = (shorter, shorter) if config["crop_mode"] == "squash" else shorter
    way = config["interpolation"] if config["interpolation"] in _SCALERS else "bicubic"
    return Sampling(_PER_SECOND, resize, side, interpolation=way)


def _network(timm: Any, name: str, source: Source) -> nn.Module:
    def untrained() -> nn.Module:
        return timm.create_model(name, pretrained=False, num_classes=0)

    published = timm.get_pretrained_cfg(name)
    if source.file:
        network = untrained()
        heads = getattr(published, "classifier", None) or ()
        heads = [heads] if isinstance(heads, str) else heads
        load_backbone_weights(network, name, source.file, heads)
        return network
    if source.random:
        size = getattr(published, "input_size", None) or (3, 224, 224)
        mean, std = ((255 * x,) * 3 for x in (0.45, 0.225))  # about those of all
        return random_network(untrained, blots((1, *size), mean, std))
    if not getattr(published, "hf_hub_id", None):
        raise source.missing(name, "timm knows of none, so find or train some")
    return _from_hub(timm, name, source, published.hf_hub_id)


def _from_hub(timm: Any, name: str, source: Source, repository: str) -> nn.Module:
    address, here = hub_address(repository), hub_file(repository)
    way = f"download model.safetensors from {address}"
    if not here and (is_offline() or not reachable(address)):
        raise source.missing(name, f"the hub cannot be reached from here; {way} elsewhere")
    try:
        if not here:
            return timm.create_model(name, pretrained=True, num_classes=0)
        with without_hub():
            return timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:  # of the hub, of the connection, of the file
        reason = " ".join(str(error).split())[:200]
        raise source.missing(name, f"they could not be loaded ({reason}); {way}") from None


@torch.inference_mode()
def _width(network: nn.Module, height: int, width: int) -> int | None:
    """Try a picture of some size; return D, None if the network does not take it."""
    try:
        features = network.eval()(torch.zeros(1, 3, height, width))
    except Exception:  # each has its own way to say so
        return None
    return features.shape[1] if features.ndim == 2 else None


def _full_name(network: Any) -> str:
    """Name a model with the tag of its weights, which a user may leave out."""
    config = network.pretrained_cfg
    tag = config.get("tag")
    return f"{config['architecture']}.{tag}" if tag else config["architecture"]
