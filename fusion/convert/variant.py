"""Which published EAO, AVLnet or MCN a file holds, by the names and shapes of its weights.

Shapes do not show the number of heads or what is done to long audio. The config that the published
training saves with the weights does; a file without one gets the published values, and a note.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

from fusion.convert.names import FUSED
from fusion.data.untrusted.unpickler import printable
from fusion.models.davenet import BLOCKS, POOLING, WIDTHS

HEAD_WIDTH = 64  # of every published model: 4096 / 64 heads, 2048 / 32, 1024 / 16
NUM_FRAMES = {"eao": 768, "avlnet": 1008, "avlnet_tri": 800}  # in the published pre-training
WHY = "as in the published pre-training"
NUM_BANDS = 40
TEXT_VIDEO = "EverythingAtOnceModel_TV_Only"
OTHERS = [  # a name that only such a file has
    (r"(token_projections|heads)\..+", "this project, whose folders need no conversion"),
    (r"mixed_3b\..+", "S3D"),
    (r"visual\..+", "CLIP"),
    (r"layer1\.0\.conv1\.weight", "ResNet or ResNeXt"),
]

Shapes = Mapping[str, tuple[int, ...]]


@dataclasses.dataclass
class Variant:
    """One published model: the ``model`` section of its config.

    ``recorded`` lists what the file's own config says beyond the shapes, and where; ``assumed``
    what neither shows, and why this value was taken.
    """

    model: dict[str, Any] = dataclasses.field(default_factory=dict)
    recorded: list[str] = dataclasses.field(default_factory=list)
    assumed: list[str] = dataclasses.field(default_factory=list)

    def settle(self, what: str, value: Any, where: str, default: Any, why: str) -> Any:
        """Take what the file records, else a default; note which."""
        if value is not None:
            self.recorded.append(f"{what} {value} ({where})")
            return value
        self.assumed.append(f"{what} {default} ({why})")
        return default


def check_is_eao(names: Mapping[str, Any]) -> None:
    """Raise a ValueError if this is no EAO model; it says what the file seems to be."""
    if any(re.fullmatch(r"[a-z]+_token_proj(\.fc)?\.weight", name) for name in names):
        return
    kinds = [kind for pattern, kind in OTHERS if any(re.fullmatch(pattern, n) for n in names)]
    some = ", ".join(map(printable, list(names)[:3])) + (", …" if len(names) > 3 else "")
    seems = f"seem to be of {kinds[0]}" if kinds else f"are of an unknown model ({some})"
    raise ValueError(
        f"the weights {seems}; only models of EAO, AVLnet, MCN and TSM can be converted"
    )


def why_no_audio(content: Any, names: Iterable[str], at_start: Mapping[str, bool]) -> str | None:
    """Say why a model of EAO embeds no audio; None if it does.

    The text-video model has the weights of the model with audio, but its loss does not use audio.
    ``at_start``: for each modality, whether its LayerNorm is as before training.
    """
    kind = recorded(content, "config", "arch", "type", of=str) or recorded(content, "arch", of=str)
    if kind == TEXT_VIDEO:
        return f"the file says {TEXT_VIDEO}"
    named = kind is not None and kind.endswith("Model")  # not DataParallel, as several GPUs save
    if not named and at_start.get("audio") and not at_start.get("text"):
        return "audio was never trained, its LayerNorm is as at the start"
    if any(name.startswith("audio_token_proj.") for name in names):
        return None
    return "the file has none of its weights"


def detect(shapes: Shapes, content: Any, with_audio: bool, num_heads: int | None) -> Variant:
    """Find the architecture of an EAO model.

    ``shapes`` are under the published names without ``module.``; ``content`` is that of the file,
    for what shapes do not show; ``num_heads`` overrides it. An unknown model is a ValueError.
    """
    variant = Variant()
    width = size_of(shapes, "text_norm_layer.weight", 0)
    gated = {_is_gated(shapes, name) for name in ("text_token_proj", "video_token_proj")}
    shared_head, apart = (any(n.startswith(b) for n in shapes) for b in ("proj.", "fusion_text."))
    head = "proj" if shared_head else "text_proj"
    transformer = "fusion_text" if apart else "fusion"
    if {_is_gated(shapes, head)} != gated:
        raise ValueError("some projections are gated and others are linear; here all must be alike")
    numbers = (re.match(rf"{transformer}\.blocks\.(\d+)\.", name) for name in shapes)
    blocks = {match[1] for match in numbers if match}
    hidden = size_of(shapes, f"{transformer}.blocks.0.mlp.fc1.weight", 0) if blocks else width
    modalities: dict[str, Any] = {
        name: {"dim": size_of(shapes, _weight(shapes, f"{name}_token_proj"), 1)}
        for name in ("text", "video")
    }
    if with_audio:
        modalities["audio"] = {"encoder": _davenet(shapes, content, variant)}
    if positional := "text_pos_embed" in shapes:
        for name in modalities:
            modalities[name]["max_tokens"] = size_of(shapes, f"{name}_pos_embed", 1)
    fused = ["tv", "ta", "va"] if with_audio and not apart else []
    variant.model = {
        "name": "eao",
        "modalities": modalities,
        "combinations": ["t", "v", *(["a"] if with_audio else []), *fused],
        "token_dim": width,
        "embedding_dim": size_of(shapes, _weight(shapes, head), 0),
        "num_blocks": len(blocks),
        "num_heads": _num_heads(content, width, variant) if num_heads is None else num_heads,
        "mlp_ratio": hidden / width,
        "projection": "gated" if gated == {True} else "linear",
        "shared_head": shared_head,
        "cls_token": f"{transformer}.cls_token" in shapes,
        "positional": positional,
        "transformer_per_modality": apart,
    }
    return variant


def recorded(content: Any, *keys: str, of: type) -> Any:
    """Look up a value of one type in nested dicts; None if there is none."""
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    return content if isinstance(content, of) and not isinstance(content, bool) else None


def _num_heads(content: Any, width: int, variant: Variant) -> int:
    keys = ("arch", "args", "fusion_params", "num_heads")
    value = recorded(content, "config", *keys, of=int)
    if value is not None and (value < 1 or width % value):
        value = None
    if value is None and width % HEAD_WIDTH:
        raise ValueError(
            "the number of heads is unknown: the file records none that fits, and tokens"
            f" {width} wide cannot have heads of {HEAD_WIDTH} as all published models; add"
            " --num-heads"
        )
    why = f"heads are {HEAD_WIDTH} wide in all published models; --num-heads changes it"
    where = f"the file's {'.'.join(keys)}"
    return variant.settle("num_heads", value, where, width // HEAD_WIDTH, why)


def describe_davenet(shapes: Shapes, name: str, versions: Iterable[int]) -> dict[str, Any]:
    """Describe the audio encoder ``name`` as a config does, but for its number of frames."""
    stages = {int(m[1]) for n in shapes if (m := re.match(rf"{name}\.layer(\d)\.", n))}
    last = {len(BLOCKS[version]): version for version in versions}
    if stages != set(range(1, len(stages) + 1)) or len(stages) not in last:
        known = " or ".join(f"1 to {number}" for number in last)
        raise ValueError(f"DAVEnet has the stages {sorted(stages)}; {known} are known")
    version = last[len(stages)]
    encoder: dict[str, Any] = {"name": "davenet", "version": version}
    convolutions = [f"{name}.conv1", *(f"{name}.layer{i}.0.conv1" for i in sorted(stages))]
    widths = [size_of(shapes, f"{convolution}.weight", 0) for convolution in convolutions]
    if tuple(widths) != WIDTHS[version]:
        encoder["widths"] = widths
    if (bands := size_of(shapes, f"{name}.conv1.weight", 2)) != NUM_BANDS:
        encoder["num_bands"] = bands
    return encoder


def _davenet(shapes: Shapes, content: Any, variant: Variant) -> dict[str, Any]:
    encoder = describe_davenet(shapes, "davenet", BLOCKS)
    stride = 2 ** len(BLOCKS[encoder["version"]])
    keys = ("data_loader", "args", "dataset_kwargs", "num_audio_STFT_frames")
    frames = recorded(content, "config", *keys, of=int)
    if frames is not None and (frames < 1 or frames % stride):
        frames = None
    frames = variant.settle("num_frames", frames, f"the file's {keys[-1]}", NUM_FRAMES["eao"], WHY)
    encoder["num_frames"] = frames
    return encoder | _long_clips(shapes, content, variant, stride, frames // stride)


def _long_clips(
    shapes: Shapes, content: Any, variant: Variant, stride: int, tokens: int
) -> dict[str, Any]:
    """Find what the model does with clips that have more audio tokens than it takes."""
    arguments = recorded(content, "config", "arch", "args", of=dict)
    strategy = recorded(arguments, "strategy_audio_pooling", of=str)
    most = recorded(arguments, "audio_max_num_STFT_frames", of=int)
    strategy = {"clip": "cut"}.get(strategy or "none", strategy)
    if strategy in POOLING and most is not None and most >= stride:
        variant.recorded.append(f"long_clips {strategy} (the file's strategy_audio_pooling)")
        return {"max_tokens": most // stride, "long_clips": strategy}
    if arguments is None:
        variant.assumed.append(f"long audio is not pooled ({WHY})")
    if "audio_pos_embed" in shapes and (most := size_of(shapes, "audio_pos_embed", 1)) < tokens:
        variant.assumed.append(f"audio tokens after the {most} that have a position are cut off")
        return {"max_tokens": most}
    return {}


def _is_gated(shapes: Shapes, projection: str) -> bool:
    return _weight(shapes, projection).endswith(".fc.weight")


def _weight(shapes: Shapes, projection: str) -> str:
    name = f"{projection}.weight"
    return name if name in shapes else f"{projection}.fc.weight"


def size_of(shapes: Shapes, name: str, axis: int) -> int:
    """Give one axis of the shape of a weight; it is an error if the weight or axis is missing."""
    if name not in shapes:
        raise ValueError(f"the weight {name!r} is missing; the file is no whole model")
    if len(shapes[name]) <= axis or not shapes[name][axis]:
        raise ValueError(
            f"the weight {name!r} has the shape {shapes[name]}, unlike any published model"
        )
    return shapes[name][axis]


def detect_avlnet(shapes: Shapes) -> Variant:
    """Find the architecture of an AVLnet (also as EAO's authors keep it) or MCN."""
    is_mcn, fused = any(name.startswith("recon_") for name in shapes), FUSED in shapes
    with_text = "text_pooling_caption.fc.weight" in shapes
    is_tri = with_text and not is_mcn and not fused
    encoder = describe_davenet(shapes, "DAVEnet", [1])
    encoder["num_frames"] = NUM_FRAMES["avlnet_tri" if is_tri else "avlnet"]
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
        f"num_frames {encoder['num_frames']} ({WHY})",
        f"mean_over_padding True ({WHY})",
        f"one video token, the maximum over time, each kind of features of unit length ({WHY})",
    ]
    if is_tri:  # the one that EAO's code has too
        assumed.append(
            "normalize_video False (as AVLnet's authors train it; if EAO's code did, take the model"
            " section of configs/howto100m/avlnet_eao.yaml)"
        )
    return Variant(model, assumed=assumed)
