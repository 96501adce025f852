"""A three-dimensional network of the depth of a ResNet: its convolutions, inflated in time.

As in I3D (arXiv:1705.07750; for ResNets arXiv:1711.07971). The published ones also halve the number
of frames; here it stays, as in TSM, so that both do the same work but for the convolutions.
"""

import copy

import torch
from torch import nn

from fusion.models.video.frame_networks import FrameNetwork

KINDS = ("first", "all")  # which convolutions are inflated
LENGTH = 3  # frames that an inflated convolution sees


class Inflated(nn.Module):
    """Classify clips (B, T, 3, H, W) by a ResNet of timm with three-dimensional convolutions.

    ``kind`` "first": the first convolution of each block sees 3 frames (in a bottleneck 3 x 1 x 1);
    "all": every convolution of more than one pixel does, also the first of the network. Weights are
    those of the plain network, divided by 3: of a film that stands still both say the same, but at
    its ends.
    """

    def __init__(self, network, num_classes, kind):
        super().__init__()
        plain = FrameNetwork(network, False, None, False)
        if not plain.is_resnet:
            raise ValueError(f"{network} is no ResNet, and only these are inflated")
        self.net, firsts = plain.timm, set()
        for stage in plain.stages():
            firsts |= {id(block.conv1) for block in stage}
        for parent in list(self.net.modules()):
            for name, layer in list(parent.named_children()):
                setattr(parent, name, _in_three(layer, _is_inflated(layer, kind, firsts)))
        self.classifier = nn.Linear(plain.num_features, num_classes)

    def forward(self, clips):
        """Return the logits of clips, (B, K)."""
        net = self.net
        x = net.maxpool(net.act1(net.bn1(net.conv1(clips.transpose(1, 2)))))
        x = net.layer4(net.layer3(net.layer2(net.layer1(x))))
        return self.classifier(x.mean(dim=(2, 3, 4)))


def _is_inflated(layer, kind, firsts):
    if kind == "first":
        return id(layer) in firsts
    return isinstance(layer, nn.Conv2d) and max(layer.kernel_size) > 1


def _in_three(layer, inflated):
    """Give a layer a dimension of time, of 1 frame if it is not inflated."""
    if isinstance(layer, nn.Conv2d):
        frames = LENGTH if inflated else 1
        made = nn.Conv3d(
            layer.in_channels,
            layer.out_channels,
            (frames, *layer.kernel_size),
            stride=(1, *layer.stride),
            padding=(frames // 2, *layer.padding),
            groups=layer.groups,
            bias=layer.bias is not None,
        )
        with torch.no_grad():
            made.weight.copy_(layer.weight[:, :, None] / frames)
        return made
    if isinstance(layer, nn.BatchNorm2d):
        norm = nn.BatchNorm3d(layer.num_features, layer.eps, layer.momentum)
        norm.load_state_dict(layer.state_dict())
        return norm
    if isinstance(layer, nn.MaxPool2d):
        sizes = (layer.kernel_size, layer.stride, layer.padding)
        return nn.MaxPool3d((1, *(sizes[0],) * 2), (1, *(sizes[1],) * 2), (0, *(sizes[2],) * 2))
    return copy.copy(layer) if isinstance(layer, nn.ReLU) else layer
