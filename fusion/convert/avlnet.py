"""Which AVLnet or MCN a file holds (AVLnet also as EAO's authors keep it)."""

from __future__ import annotations

from typing import Any

from fusion.convert.names import FUSED
from fusion.convert.variant import Shapes, Variant, describe_davenet, size_of

NUM_FRAMES = 1008  # of the published pre-training: 10 s
NUM_FRAMES_TRI = 800  # of that of AVLnet-Text-Tri: 8 s
WHY = "(as in the published pre-training)"


def detect_avlnet(shapes: Shapes) -> Variant:
    """Find the architecture in the shapes of weights, under their names without ``module.``.

    Raises:
        ValueError: it is none that this project has.
    """
    is_mcn, fused = any(name.startswith("recon_") for name in shapes), FUSED in shapes
    with_text = "text_pooling_caption.fc.weight" in shapes
    is_tri = with_text and not is_mcn and not fused
    encoder = describe_davenet(shapes, "DAVEnet", [1])
    encoder["num_frames"] = NUM_FRAMES_TRI if is_tri else NUM_FRAMES
    modalities: dict[str, Any] = {}
    if with_text:
        modalities["text"] = {"dim": size_of(shapes, "text_pooling_caption.fc.weight", 1)}
    modalities["video"] = {"dim": size_of(shapes, "GU_video.fc.weight", 1)}
    modalities["audio"] = {"encoder": encoder}
    model = {
        "name": "mcn" if is_mcn else "avlnet",
        "modalities": modalities,
        "embedding_dim": size_of(shapes, "GU_video.fc.weight", 0),
        "mean_over_padding": True,  # as published; only training reads it
    }
    if is_mcn:
        model["reconstruction_dim"] = size_of(shapes, "recon_v.0.weight", 0)
    else:
        model["fuse_text_audio"] = fused
    assumed = [
        f"num_frames {encoder['num_frames']} {WHY}",
        f"mean_over_padding True {WHY}",
        f"one video token, the maximum over time, each kind of features of unit length {WHY}",
    ]
    if is_tri:  # the one that EAO's code has too
        assumed.append(
            "normalize_video False (as AVLnet's authors train it; if EAO's code did, take the model"
            " section of configs/howto100m/avlnet_eao.yaml)"
        )
    return Variant(model, assumed=assumed)
