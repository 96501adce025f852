"""Published weights of AVLnet (also as EAO's authors keep it) and of MCN under our names.

The published names are facts about the files that people have; the code here is our own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from fusion.convert.names import NEVER_USED
from fusion.convert.variant import NUM_BANDS, Shapes, Variant, size_of
from fusion.models.davenet import WIDTHS

# Published name -> ours; the first pattern that matches the whole name counts.
RULES = [
    (r"DAVEnet\.layer(\d)\.(.+)", r"branches.audio.encoder.net.stages.\1.\2"),
    (r"DAVEnet\.(conv1|bn1)\.(.+)", r"branches.audio.encoder.net.\1.\2"),
    (r"DAVEnet_projection\.(.+)", r"branches.audio.project.\1"),
    (r"text_pooling_caption\.fc\.(.+)", r"branches.text.project.\1"),
    (r"GU_(audio|video)\.fc\.(.+)", r"branches.\1.gate.project.\2"),
    (r"GU_(audio|video)\.cg\.fc\.(.+)", r"branches.\1.gate.gate.\2"),
    (r"GU_text_captions\.fc\.(.+)", r"branches.text.gate.project.\1"),
    (r"GU_text_captions\.cg\.fc\.(.+)", r"branches.text.gate.gate.\1"),
    (r"GU_audio_text\.fc_(audio|text)\.(.+)", r"join.project_\1.\2"),
    (r"GU_audio_text\.cg\.fc\.(.+)", r"join.gate.\1"),
    (r"recon_v\.(.+)", r"reconstruct.video.\1"),
    (r"recon_a\.(.+)", r"reconstruct.audio.\1"),
    (r"recon_t\.(.+)", r"reconstruct.text.\1"),
]
FUSED = "GU_audio_text.cg.fc.weight"
NUM_FRAMES = 1008  # of the published pre-training: 10 s
NUM_FRAMES_TRI = 800  # of that of AVLnet-Text-Tri: 8 s


def is_avlnet(names: Iterable[str]) -> bool:
    """Tell whether weights are of AVLnet or MCN."""
    return any(re.match(r"(DAVEnet|GU_audio|GU_audio_text)\.", name) for name in names)


def convert_avlnet_name(name: str, fused: bool = False) -> str | None:
    """Translate the published name of a weight.

    Args:
        name: without ``module.`` before it.
        fused: of AVLnet-Text-Fused, which never reads the gate of the audio branch.

    Returns:
        The name in :class:`fusion.models.AVLnet` or :class:`fusion.models.MCN`, or None for a
        weight that nothing ever used.

    Raises:
        ValueError: no published model of these has a weight of that name.
    """
    if re.fullmatch(r"DAVEnet\.batchnorm1\..+", name):
        return None
    if fused and name.startswith("GU_audio."):
        return None
    for pattern, ours in RULES:
        if match := re.fullmatch(pattern, name):
            # The published stages count from 1.
            converted = match.expand(ours).replace(".downsample.", ".shortcut.")
            return re.sub(r"stages\.(\d)", lambda m: f"stages.{int(m[1]) - 1}", converted)
    raise ValueError(f"weight {name!r} belongs to no published AVLnet or MCN that is known here")


def sort_avlnet_weights(published: Iterable[str]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Decide which weights are kept: our name of each; and those that are dropped, by the reason.

    Raises:
        ValueError: a weight has an unknown name.
    """
    published = list(published)
    ours = {name: convert_avlnet_name(name, FUSED in published) for name in published}
    dropped = [name for name, converted in ours.items() if converted is None]
    kept = {name: converted for name, converted in ours.items() if converted is not None}
    return kept, {NEVER_USED: dropped} if dropped else {}


def convert_avlnet_weights(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate a published state dict, with or without ``module.`` before its names.

    Raises:
        ValueError: a weight has an unknown name.
    """
    weights = {name.removeprefix("module."): tensor for name, tensor in published.items()}
    return {ours: weights[name] for name, ours in sort_avlnet_weights(weights)[0].items()}


def detect_avlnet(shapes: Shapes) -> Variant:
    """Find out the architecture.

    Args:
        shapes: of the weights, under their published names without ``module.``.

    Raises:
        ValueError: it is none that this project has.
    """
    variant = Variant()
    is_mcn, fused = any(name.startswith("recon_") for name in shapes), FUSED in shapes
    name = "mcn" if is_mcn else "avlnet"
    stages = {int(m[1]) for n in shapes if (m := re.match(r"DAVEnet\.layer(\d)\.", n))}
    if stages != {1, 2, 3, 4}:
        raise ValueError(f"DAVEnet has the stages {sorted(stages)}; AVLnet and MCN have 1 to 4")
    convolutions = ["DAVEnet.conv1", *(f"DAVEnet.layer{i}.0.conv1" for i in sorted(stages))]
    widths = [size_of(shapes, f"{part}.weight", 0) for part in convolutions]
    with_text = "text_pooling_caption.fc.weight" in shapes
    is_tri = with_text and not is_mcn and not fused
    frames = NUM_FRAMES_TRI if is_tri else NUM_FRAMES
    variant.assumed = _what_weights_do_not_show(frames, is_tri)
    encoder: dict[str, Any] = {"name": "davenet", "version": 1, "num_frames": frames}
    if tuple(widths) != WIDTHS[1]:
        encoder["widths"] = widths
    if (bands := size_of(shapes, "DAVEnet.conv1.weight", 2)) != NUM_BANDS:
        encoder["num_bands"] = bands
    modalities: dict[str, Any] = {
        "video": {"dim": size_of(shapes, "GU_video.fc.weight", 1)},
        "audio": {"encoder": encoder},
    }
    if with_text:
        text = {"dim": size_of(shapes, "text_pooling_caption.fc.weight", 1)}
        modalities = {"text": text} | modalities
    width = size_of(shapes, "GU_video.fc.weight", 0)
    variant.model = {"name": name, "modalities": modalities, "embedding_dim": width}
    variant.model["mean_over_padding"] = True  # published; only training reads it
    if is_mcn:
        variant.model["reconstruction_dim"] = size_of(shapes, "recon_v.0.weight", 0)
    else:
        variant.model["fuse_text_audio"] = fused
    return variant


def _what_weights_do_not_show(num_frames: int, is_tri: bool) -> list[str]:
    why = "(as in the published pre-training)"
    assumed = [
        f"num_frames {num_frames} {why}",
        f"mean_over_padding True {why}",
        f"one video token, the maximum over time, each kind of features of unit length {why}",
    ]
    if is_tri:  # the one that EAO's code has too
        assumed.append(
            "normalize_video False (as AVLnet's authors train it; if EAO's code did, take the model"
            " section of configs/howto100m/avlnet_eao.yaml)"
        )
    return assumed
