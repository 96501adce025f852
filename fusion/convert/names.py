"""Published names of the weights of EAO, AVLnet and MCN (facts about files), and ours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

MODALITIES = ("text", "video", "audio")
M = f"({'|'.join(MODALITIES)})"

# Published name -> ours; the first pattern that matches the whole name counts.
RULES = [
    # EAO
    (r"fusion(_text)?\.(masking_token|cls_token)", r"\2"),
    (r"fusion\.(blocks\..+)", r"transformers.shared.\1"),
    (rf"fusion_{M}\.(blocks\..+)", r"transformers.\1.\2"),
    (rf"{M}_norm_layer\.(.+)", r"token_projections.\1.1.\2"),
    (rf"{M}_token_proj\.(.+)", r"token_projections.\1.0.\2"),
    (rf"{M}_proj\.(.+)", r"heads.\1.\2"),
    (r"proj\.(.+)", r"heads.shared.\1"),
    (rf"{M}_pos_embed", r"positions.\1"),
    (r"davenet\.layer(\d\..+)", r"encoders.audio.net.stages.\1"),
    (r"davenet\.((conv1|bn1)\..+)", r"encoders.audio.net.\1"),
    # AVLnet and MCN
    (r"DAVEnet\.layer(\d\..+)", r"branches.audio.encoder.net.stages.\1"),
    (r"DAVEnet\.((conv1|bn1)\..+)", r"branches.audio.encoder.net.\1"),
    (r"DAVEnet_projection\.(.+)", r"branches.audio.project.\1"),
    (r"text_pooling_caption\.(fc\..+)", r"branches.text.\1"),
    (r"GU_(audio|video)\.((cg\.)?fc\..+)", r"branches.\1.gate.\2"),
    (r"GU_text_captions\.((cg\.)?fc\..+)", r"branches.text.gate.\1"),
    (r"GU_audio_text\.fc_(audio|text)\.(.+)", r"join.project_\1.\2"),
    (r"GU_audio_text\.(cg\.fc\..+)", r"join.\1"),
    (r"recon_v\.(.+)", r"reconstruct.video.\1"),
    (r"recon_a\.(.+)", r"reconstruct.audio.\1"),
    (r"recon_t\.(.+)", r"reconstruct.text.\1"),
]
PARTS = [  # renamed inside of what the rules kept
    (".attn.qkv.", ".attention.qkv."),
    (".attn.proj.", ".attention.out."),
    (".mlp.fc1.", ".mlp.0."),
    (".mlp.fc2.", ".mlp.2."),
    (".cg.fc.", ".gate."),
    (".fc.", ".project."),
    (".downsample.", ".shortcut."),
]
# Weights that the published modules hold and never use.
UNUSED = [
    r"fusion(_[a-z]+)?\.norm\..+",
    r"fusion_(video|audio)\.(masking_token|cls_token)",  # all modalities use the text's
    r"(davenet|DAVEnet)\.batchnorm1\..+",
]
FUSED = "GU_audio_text.cg.fc.weight"  # of AVLnet-Text-Fused


def is_avlnet(names: Iterable[str]) -> bool:
    """Tell whether weights are of AVLnet or MCN."""
    return any(re.match(r"(DAVEnet|GU_audio|GU_audio_text)\.", name) for name in names)


def convert_name(name: str) -> str | None:
    """Translate the published name of a weight, without ``module.``; None if it is never used.

    Raises:
        ValueError: no published model has a weight of that name.
    """
    if any(re.fullmatch(pattern, name) for pattern in UNUSED):
        return None
    for pattern, ours in RULES:
        if match := re.fullmatch(pattern, name):
            converted = match.expand(ours)
            for part, replacement in PARTS:
                converted = converted.replace(part, replacement)
            # The published stages count from 1.
            return re.sub(r"stages\.(\d)", lambda m: f"stages.{int(m[1]) - 1}", converted)
    raise ValueError(f"weight {name!r} belongs to no published EAO, AVLnet or MCN that is known")


def sort_weights(
    published: Iterable[str], modalities: Iterable[str] = MODALITIES
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Decide which weights of a published model are kept, for a model of these modalities.

    Returns our name of each weight that is kept; and those that are dropped, by the reason.
    """
    published, modalities = list(published), list(modalities)
    per_modality = any(name.startswith("fusion_text.") for name in published)
    kept: dict[str, str] = {}
    dropped: dict[str, list[str]] = {}
    for name in published:
        ours = convert_name(name)
        owner = next((m for m in MODALITIES if ours and m in ours.split(".")), None)
        if per_modality and name.startswith("fusion."):
            why = "second names of the text's transformer"
        elif ours is None or (FUSED in published and name.startswith("GU_audio.")):
            why = "the published model never uses them"
        elif owner and owner not in modalities:
            why = f"the model does not embed {owner}"
        else:
            kept[name] = ours
            continue
        dropped.setdefault(why, []).append(name)
    return kept, dropped


def convert_weights(
    published: Mapping[str, Tensor], modalities: Iterable[str] = MODALITIES
) -> dict[str, Tensor]:
    """Translate the state dict of a published model, with or without ``module.`` before the names.

    Weights of other ``modalities`` are dropped. (The published text-video model of EAO has an audio
    branch that its embeddings never depend on.)

    Raises:
        ValueError: a weight has an unknown name.
    """
    weights = {name.removeprefix("module."): tensor for name, tensor in published.items()}
    converted = {}
    for name, ours in sort_weights(weights, modalities)[0].items():
        tensor = weights[name]
        if ours == "cls_token":
            tensor = tensor.flatten()  # (1, 1, D) -> (D,)
        if ours.startswith("positions."):
            tensor = tensor[0]  # (1, L, D) -> (L, D)
        converted[ours] = tensor
    return converted
