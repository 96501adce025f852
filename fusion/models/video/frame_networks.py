"""The two-dimensional networks inside TSM: ResNets of timm, and its MobileNetV2.

Shapes: N frames, H and W pixels, C channels.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fusion.models.batchnorm import GroupedBatchNorm

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and standard deviation of colours
BLOCKS = {"basic": "BasicBlock", "bottleneck": "Bottleneck"}
STAGES = 4  # of a ResNet


class FrameNetwork(nn.Module):
    """A network of timm without its classifier, cut into stages of blocks.

    Args:
        network: name in timm, of a ResNet or of ``mobilenetv2_*``; or ``{block: basic or
            bottleneck, layers: the blocks of 4 stages, widths: their channels}``, a ResNet whose
            first convolution has ``widths[0]`` channels.
        pretrained: with the weights that timm downloads; not on the meta device.
        batchnorm_group, batchnorm_frozen: see :class:`fusion.models.batchnorm.GroupedBatchNorm`.

    Attributes:
        num_features: width of what comes out.
        mean, std: of the colours of frames that were divided by 255.
        first_conv: name of the first convolution of a block.

    Raises:
        ValueError: there is no such network, it is of another kind, or it cannot be downloaded.
    """

    def __init__(
        self,
        network: str | Mapping[str, Any],
        pretrained: bool,
        batchnorm_group: int | None,
        batchnorm_frozen: bool,
    ) -> None:
        super().__init__()
        self.timm = timm = _build(network, pretrained)
        self.is_resnet = hasattr(timm, "layer1")
        if self.is_resnet:
            self.first_conv = "conv1"
            self._stages = [f"layer{stage + 1}" for stage in range(STAGES)]
        else:
            self.first_conv = "conv_pw"
            self._stages = [f"blocks.{stage}" for stage in range(len(timm.blocks))]
        self.num_features: int = timm.num_features
        facts = getattr(timm, "pretrained_cfg", None) or {}
        self.mean, self.std = (
            tuple(facts.get(key) or default)
            for key, default in zip(("mean", "std"), IMAGENET, strict=True)
        )
        _group_norms(timm, batchnorm_group, batchnorm_frozen)

    def stages(self) -> list[nn.Sequential]:
        """The stages, each a sequence of blocks."""
        return [self.timm.get_submodule(name) for name in self._stages]

    def may_shift(self, block: nn.Module) -> bool:
        """Return whether a block has a shortcut around a first convolution."""
        return self.is_resnet or bool(hasattr(block, "conv_pw") and block.has_skip)

    def stem(self, x: Tensor) -> Tensor:
        """Compute what comes before the stages."""
        net: Any = self.timm
        if self.is_resnet:
            return net.maxpool(net.act1(net.bn1(net.conv1(x))))
        return net.bn1(net.conv_stem(x))

    def head(self, x: Tensor) -> Tensor:
        """Compute what comes after the stages, and the mean over space: -> (N, num_features)."""
        net: Any = self.timm
        x = x if self.is_resnet else net.bn2(net.conv_head(x))
        return x.mean(dim=(2, 3))


class NormAct(GroupedBatchNorm):
    """BatchNorm with the activation after it, as one module of timm."""

    def __init__(self, channels: int, group: int | None, frozen: bool, act: nn.Module) -> None:
        super().__init__(channels, group, frozen)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """Normalise and activate."""
        return self.act(super().forward(x))


def _build(network: str | Mapping[str, Any], pretrained: bool) -> Any:
    if isinstance(network, str):
        return _from_timm(network, pretrained)
    known = {"block", "layers", "widths"}
    if not isinstance(network, Mapping) or {*network} != known:
        raise ValueError(
            "network must be the name of a ResNet of timm, such as resnet50, or a mapping of block,"
            f" layers and widths; got {network!r}"
        )
    if pretrained:
        raise ValueError("pretrained: only networks with a name of timm have weights to download")
    return _own_resnet(network["block"], list(network["layers"]), list(network["widths"]))


def _from_timm(name: str, pretrained: bool) -> Any:
    import timm  # slow to import
    from timm.models import EfficientNet, ResNet

    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), 3) or ["resnet50"]
        raise ValueError(f"timm has no model {name!r}; did you mean {' or '.join(near)}?")
    with_weights = pretrained and torch.get_default_device().type != "meta"
    try:
        net: Any = timm.create_model(name, pretrained=with_weights, num_classes=0)
    except Exception as error:  # of the network, of the hub, of the file
        if not with_weights:
            raise
        reason = " ".join(str(error).split())
        raise ValueError(
            f"the weights of {name} cannot be downloaded ({reason}); set pretrained=false"
        ) from None
    is_mobile = isinstance(net, EfficientNet) and name.startswith("mobilenetv2")
    if not isinstance(net, ResNet) and not is_mobile:
        raise ValueError(
            f"TSM needs a ResNet of timm or mobilenetv2_*; {name} is a {type(net).__name__}"
        )
    return net


def _own_resnet(block: str, layers: Sequence[int], widths: Sequence[int]) -> Any:
    from timm.models import resnet

    if block not in BLOCKS:
        raise ValueError(f"network.block must be one of {list(BLOCKS)}; got {block!r}")
    if len(layers) != STAGES or len(widths) != STAGES or min(*layers, *widths) < 1:
        raise ValueError(
            f"network.layers and network.widths need {STAGES} numbers from 1 on; got {layers} and"
            f" {widths}"
        )
    kind = getattr(resnet, BLOCKS[block])
    net: Any = resnet.ResNet(kind, tuple(layers), num_classes=0, channels=tuple(widths))
    # timm's first convolution always has 64 channels.
    net.conv1 = nn.Conv2d(3, widths[0], kernel_size=7, stride=2, padding=3, bias=False)
    net.bn1 = nn.BatchNorm2d(widths[0])
    layers_of: dict[str, Any] = {"act_layer": nn.ReLU, "norm_layer": nn.BatchNorm2d}
    stages, _ = resnet.make_blocks(
        (kind,) * STAGES, tuple(widths), tuple(layers), inplanes=widths[0], **layers_of
    )
    for name, stage in stages:
        setattr(net, name, stage)
    net.init_weights()
    return net


def _group_norms(net: nn.Module, group: int | None, frozen: bool) -> None:
    """Replace each BatchNorm by one over groups of clips, with the same state."""
    for parent in list(net.modules()):
        for name, norm in list(parent.named_children()):
            if isinstance(norm, nn.BatchNorm2d):
                own = _like(norm, group, frozen)
                own.load_state_dict(norm.state_dict(), assign=True)
                own.eps, own.momentum = norm.eps, norm.momentum
                setattr(parent, name, own)


def _like(norm: nn.Module, group: int | None, frozen: bool) -> GroupedBatchNorm:
    channels: int = norm.num_features  # type: ignore[assignment]
    if type(norm) is nn.BatchNorm2d:
        return GroupedBatchNorm(channels, group, frozen)
    act: Callable[..., Any] | None = getattr(norm, "act", None)
    if not isinstance(act, nn.Module):
        raise ValueError(f"a network with {type(norm).__name__} cannot be taken")
    return NormAct(channels, group, frozen, act)
