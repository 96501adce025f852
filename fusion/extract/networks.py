"""The networks that features come from, by name.

For single pictures ("2d"): any model of timm or transformers, one picture a second as in the
features of HowTo100M.
For motion ("3d"): those of published features, and the video models of torchvision.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fusion.data.media.pictures import Sampling
from fusion.extract import weights
from fusion.extract.backbone import NONE, Backbone, Source, import_package
from fusion.extract.transformers_models import PREFIX, SoundBackbone, image_backbone
from fusion.models.video.weight_names import RESNEXT101, S3D_HOWTO100M, Published

Builder = Callable[[str, Source], Backbone]
Scale = tuple[Sequence[float], Sequence[float]]  # mean and standard deviation of 0 to 255

BACKBONES_2D: dict[str, Builder] = {}  # looked up before timm's names

_SCALERS = ("bilinear", "bicubic", "lanczos")  # that FFmpeg calls by the same name
_WIDE = 16 / 9  # shape of the picture that shows whether a network takes any size


def build_backbone(name: str, source: Source) -> Backbone | SoundBackbone | None:
    """Build a backbone; None for ``none``.

    ``name`` is for the field ``2d`` one of ``BACKBONES_2D``, any model of timm, or ``hf:`` and an
    image model of transformers; for ``3d`` one of ``BACKBONES_3D``; for ``sound`` ``hf:`` and a
    sound model of transformers, a folder or a name on the Hugging Face hub. ValueError: it is
    unknown, or a package or weights are missing; one line.
    """
    if name == NONE:
        return None
    if source.field == "sound":
        if not name.startswith(PREFIX):
            raise ValueError(
                f"--features-audio: unknown {name}; write {PREFIX}FOLDER_OR_NAME, a sound model of"
                f" transformers, or {NONE}"
            )
        return SoundBackbone(name, source)
    if source.field == "2d" and name.startswith(PREFIX):
        return image_backbone(name, source)
    if source.field == "2d":
        return BACKBONES_2D.get(name, _timm)(name, source)
    if name not in BACKBONES_3D:
        raise ValueError(
            f"--features-3d: unknown {name}; choose from {', '.join([*BACKBONES_3D, NONE])}"
        )
    return BACKBONES_3D[name](name, source)


def _timm(name: str, source: Source) -> Backbone:
    """Build a model of timm.

    A network that takes pictures of any size gets the whole of each picture, its shorter side
    scaled by FFmpeg as in the published features; mean and standard deviation are those of its own
    config. Any other gets the middle of the picture, scaled as its config says.
    """
    timm = import_package("timm")
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), 3) or ["resnet50"]
        raise ValueError(
            f"--features-2d: {name} is no model of timm; did you mean {' or '.join(near)}?"
            f" ({NONE}: no 2D features)"
        )
    network = timm_network(name, source)
    config: dict[str, Any] = timm.data.resolve_model_data_config(network)
    side, dim = config["input_size"][-1], _width(network, *config["input_size"][1:])
    if dim is None:
        raise ValueError(f"--features-2d: {name} gives no feature of a picture; choose another one")
    any_size = _width(network, side, int(side * _WIDE)) == dim
    sampling = Sampling(1, side) if any_size else _fixed_size(side, config)
    scale = [255 * value for value in config["mean"]], [255 * value for value in config["std"]]
    config, tag = network.pretrained_cfg, network.pretrained_cfg.get("tag")
    full_name = config["architecture"] + (f".{tag}" if tag else "")  # a user may leave out the tag
    return Backbone(full_name, network, sampling, dim, *scale, source)


def _fixed_size(side: int, config: Mapping[str, Any]) -> Sampling:
    shorter = int(side / config["crop_pct"])
    resize = (shorter, shorter) if config["crop_mode"] == "squash" else shorter
    way = config["interpolation"] if config["interpolation"] in _SCALERS else "bicubic"
    return Sampling(1, resize, side, interpolation=way)


def timm_network(name: str, source: Source) -> Any:
    """Build a network of timm without classifier, with the weights that ``source`` says.

    Raises:
        ValueError: there are none, or the file is of another network.
    """
    timm = import_package("timm")

    def untrained() -> nn.Module:
        return timm.create_model(name, pretrained=False, num_classes=0)

    published = timm.get_pretrained_cfg(name)
    if source.file:
        network = untrained()
        heads = getattr(published, "classifier", None) or ()
        heads = [heads] if isinstance(heads, str) else heads
        weights.load_backbone_weights(network, name, source.file, heads)
        return network
    if source.random:
        size = getattr(published, "input_size", None) or (3, 224, 224)
        mean, std = ((255 * x,) * 3 for x in (0.45, 0.225))  # typical of these networks
        return weights.random_network(untrained, weights.blots((1, *size), mean, std))
    if not getattr(published, "hf_hub_id", None):
        raise source.missing(name, "timm knows of none, so find or train some")
    hub = import_package("huggingface_hub.constants")
    address = f"{hub.ENDPOINT}/{published.hf_hub_id}"
    way = f"download model.safetensors from {address}"
    here = None if published.hf_hub_filename else weights.hub_file(published.hf_hub_id)
    # With a file the hub does not ask its server, which may take 25 s.
    options = {"pretrained_cfg_overlay": {"file": here}} if here else {}
    if not here and (hub.HF_HUB_OFFLINE or not weights.reachable(address)):
        raise source.missing(name, f"the hub cannot be reached from here; {way} elsewhere")
    try:
        return timm.create_model(name, pretrained=True, num_classes=0, **options)
    except Exception as error:  # of the hub, of the connection, of the file
        reason = " ".join(str(error).split())[:200]
        raise source.missing(name, f"they could not be loaded ({reason}); {way}") from None


@torch.inference_mode()
def _width(network: nn.Module, height: int, width: int) -> int | None:
    """Try a picture of some size; return D, None if the network does not take it."""
    try:
        features = network.eval()(torch.zeros(1, 3, height, width))
    except Exception:  # networks raise different errors for a wrong size
        return None
    return features.shape[1] if features.ndim == 2 else None


def _published(name: str, source: Source) -> Backbone:
    """Build a network of published features."""
    published, sampling, dim, scale = PUBLISHED[name]
    if source.file:
        network = published.load(source.file)
    elif source.random:
        network = weights.random_network(published.backbone, _example(sampling, scale))
    else:
        raise source.missing(name, f"download {published.source}")
    return Backbone(name, network, sampling, dim, *scale, source)


def _torchvision(name: str, source: Source) -> Backbone:
    """Build a video model of torchvision, which knows all but the rate of the pictures."""
    models = import_package("torchvision.models")
    plain, (frames_per_second, frames, stride) = name.removeprefix("tv_"), TORCHVISION[name]
    published = models.get_model_weights(plain).DEFAULT
    seen = published.transforms()
    size = seen.resize_size[0] if len(seen.resize_size) == 1 else tuple(seen.resize_size)
    way = seen.interpolation.value
    sampling = Sampling(frames_per_second, size, seen.crop_size[0], frames, stride, way)
    scale = [255 * x for x in seen.mean], [255 * x for x in seen.std]
    network, head, dim = _headless(models.get_model(plain, weights=None))
    if source.random and not source.file:
        network = weights.random_network(
            lambda: _headless(models.get_model(plain, weights=None))[0], _example(sampling, scale)
        )
    else:
        try:
            file = source.file or weights.fetch(published.url)
        except ConnectionError as error:
            way = f"{error}; download {published.url} elsewhere"
            raise source.missing(name, way) from None
        weights.load_backbone_weights(network, name, file, [head])
    return Backbone(name, network, sampling, dim, *scale, source)


def _headless(network: nn.Module) -> tuple[nn.Module, str, int]:
    """Take the classifier off; return the network, the classifier's name and its input width."""
    name = next(n for n in ("fc", "classifier", "head") if hasattr(network, n))
    head: Any = getattr(network, name)
    last: Any = head[-1] if isinstance(head, nn.Sequential) else head
    setattr(network, name, nn.Identity())
    width = last.in_channels if isinstance(last, nn.Conv3d) else last.in_features
    return network, name, width


def _example(sampling: Sampling, scale: Scale) -> Tensor:
    return weights.blots((1, 3, sampling.frames, *sampling.picture_size(1, 1)), *scale)


# The pictures that a network gets, its width, mean and standard deviation
PUBLISHED: dict[str, tuple[Published, Sampling, int, Scale]] = {
    # Of HowTo100M's features, 1.5 per second: chunks of 16 pictures, black behind the end
    "resnext101": (
        RESNEXT101,
        Sampling(24, 112, crop=112, frames=16, stride=16),
        2048,
        ((110.6, 103.2, 96.3), (1.0,) * 3),
    ),
    # Of MIL-NCE, 1 per second as in EAO's configs: feature k sees 3.2 s from second k on. Its
    # authors published no extractor; they train on pictures of 200 and test on 224 pixels.
    "s3d": (
        S3D_HOWTO100M,
        Sampling(10, 224, crop=224, frames=32, stride=10),
        1024,
        ((0.0,) * 3, (255.0,) * 3),
    ),
}
# Trained on Kinetics, about 1 feature per second: frames per second, frames, stride
TORCHVISION: dict[str, tuple[float, int, int]] = {
    **dict.fromkeys(("r3d_18", "mc3_18", "r2plus1d_18"), (15, 16, 15)),
    "tv_s3d": (15, 32, 15),
    **dict.fromkeys(("mvit_v1_b", "mvit_v2_s"), (7.5, 16, 8)),
    **dict.fromkeys(("swin3d_t", "swin3d_s", "swin3d_b"), (15, 32, 15)),
}
BACKBONES_3D: dict[str, Builder] = {
    **dict.fromkeys(PUBLISHED, _published),
    **dict.fromkeys(TORCHVISION, _torchvision),
}
