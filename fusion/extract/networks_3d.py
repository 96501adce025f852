"""Networks for the features of motion: those of published features, and those of torchvision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fusion.extract.backbone import Backbone, Source, import_package
from fusion.extract.sampling import Sampling
from fusion.extract.weights import blots, fetch, load_backbone_weights, random_network
from fusion.models.video.resnext import ResNeXt101
from fusion.models.video.s3d import S3D
from fusion.models.video.weight_names import (
    RESNEXT101,
    S3D_HOWTO100M,
    load_resnext101,
    load_s3d,
)

Builder = Callable[[str, Source], Backbone]
Scale = tuple[Sequence[float], Sequence[float]]  # mean and standard deviation of 0 to 255


def _resnext101(name: str, source: Source) -> Backbone:
    """As published: 24 pictures per second, 112 x 112, chunks of 16, black behind the end."""
    sampling = Sampling(24, 112, crop=112, frames=16, stride=16)
    address = RESNEXT101.source
    scale = (110.6, 103.2, 96.3), (1.0,) * 3
    network = _published(name, source, load_resnext101, ResNeXt101, address, sampling, scale)
    return Backbone(name, network, sampling, 2048, *scale, source)


def _s3d(name: str, source: Source) -> Backbone:
    """As trained: 32 pictures at 10 per second. One feature per second, as in EAO's configs.

    Feature k sees 3.2 s from second k on. (Its authors published no extractor; they train on
    pictures of 200 and test on pictures of 224 pixels.)
    """
    sampling = Sampling(10, 224, crop=224, frames=32, stride=10)
    address, scale = S3D_HOWTO100M.source, ((0.0,) * 3, (255.0,) * 3)
    network = _published(name, source, load_s3d, S3D, address, sampling, scale)
    return Backbone(name, network, sampling, 1024, *scale, source)


def _published(
    name: str,
    source: Source,
    load: Callable[[Path], nn.Module],
    build: Callable[[], nn.Module],
    address: str,
    sampling: Sampling,
    scale: Scale,
) -> nn.Module:
    if source.file:
        return load(source.file)
    if source.random:
        return random_network(build, _example(sampling, scale))
    raise source.missing(name, f"download {address}")


def _torchvision(frames_per_second: float, frames: int, stride: int) -> Builder:
    """Say at which rate and length a video model of torchvision was tested; it knows the rest."""

    def build(name: str, source: Source) -> Backbone:
        models = import_package("torchvision.models")
        plain = name.removeprefix("tv_")
        published = models.get_model_weights(plain).DEFAULT
        seen = published.transforms()
        sampling = Sampling(
            frames_per_second,
            seen.resize_size[0] if len(seen.resize_size) == 1 else tuple(seen.resize_size),
            seen.crop_size[0],
            frames,
            stride,
            seen.interpolation.value,
        )
        scale = [255 * x for x in seen.mean], [255 * x for x in seen.std]
        network, head, dim = _headless(models.get_model(plain, weights=None))
        if source.file:
            load_backbone_weights(network, name, source.file, [head])
        elif source.random:
            network = random_network(
                lambda: _headless(models.get_model(plain, weights=None))[0],
                _example(sampling, scale),
            )
        else:
            _download(network, name, source, published.url, head)
        return Backbone(name, network, sampling, dim, *scale, source)

    return build


def _headless(network: nn.Module) -> tuple[nn.Module, str, int]:
    """Take the classifier off; return also what it was called and the width of what it got."""
    name = next(n for n in ("fc", "classifier", "head") if hasattr(network, n))
    head: Any = getattr(network, name)
    last: Any = head[-1] if isinstance(head, nn.Sequential) else head
    setattr(network, name, nn.Identity())
    width = last.in_channels if isinstance(last, nn.Conv3d) else last.in_features
    return network, name, width


def _download(network: nn.Module, name: str, source: Source, url: str, head: str) -> None:
    try:
        weights = fetch(url)
    except ConnectionError as error:
        raise source.missing(name, f"{error}; download {url} elsewhere") from None
    kept = {k: v for k, v in weights.items() if not k.startswith(f"{head}.")}
    network.load_state_dict(kept)


def _example(sampling: Sampling, scale: Scale) -> Tensor:
    return blots((1, 3, sampling.frames, *sampling.picture_size(1, 1)), *scale)


BACKBONES_3D: dict[str, Builder] = {
    "resnext101": _resnext101,  # of HowTo100M's features, 1.5 per second
    "s3d": _s3d,  # of MIL-NCE, 1 per second
    # Trained on Kinetics, 1 per second or nearly so
    "r3d_18": _torchvision(15, 16, 15),
    "mc3_18": _torchvision(15, 16, 15),
    "r2plus1d_18": _torchvision(15, 16, 15),
    "tv_s3d": _torchvision(15, 32, 15),
    "mvit_v1_b": _torchvision(7.5, 16, 8),
    "mvit_v2_s": _torchvision(7.5, 16, 8),
    "swin3d_t": _torchvision(15, 32, 15),
    "swin3d_s": _torchvision(15, 32, 15),
    "swin3d_b": _torchvision(15, 32, 15),
}
