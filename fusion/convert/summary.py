"""What the conversion prints: each line begins with what was found, dropped or assumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fusion.data.untrusted.unpickler import printable
from fusion.models.davenet import WIDTHS

WORD_VECTORS = "GoogleNews-vectors-negative300.bin"  # of the published models
MOST = 6  # names in a line


def describe_model(model: Mapping[str, Any]) -> list[str]:
    """Say which model was found, in lines."""
    embeddings = f"embeddings {model['embedding_dim']} wide"
    if model["name"] == "mcn":
        kind = f"MCN, with reconstruction {model['reconstruction_dim']} wide, {embeddings}"
    elif model["name"] == "avlnet":
        kind = "AVLnet"
        if "text" in model["modalities"]:
            fused = model["fuse_text_audio"]
            kind += f"-Text, {'text and audio fused' if fused else 'three branches'}"
        kind += f", {embeddings}"
    else:
        kind = f"{embeddings} of {', '.join(model['combinations'])}"
    inputs = ", ".join(_describe_input(*item) for item in model["modalities"].items())
    lines = [inputs, *([_describe_eao(model)] if model["name"] == "eao" else []), kind]
    return [f"found     {line}" for line in lines]


def _describe_input(name: str, spec: Mapping[str, Any]) -> str:
    words = f"{name} ({spec.get('dim')} wide)"
    if encoder := spec.get("encoder"):
        version = encoder["version"]
        widths = encoder.get("widths", WIDTHS[version])
        words = f"{name} (DAVEnet version {version}, {widths[0]} to {widths[-1]} wide)"
    return words + (f" of {spec['max_tokens']} tokens" if "max_tokens" in spec else "")


def _describe_eao(model: Mapping[str, Any]) -> str:
    count, width = model["num_blocks"], model["token_dim"]
    transformer = f"{count} transformer block{'' if count == 1 else 's'}, {width} wide"
    if count:
        transformer += f" with MLPs {round(model['mlp_ratio'] * width)} wide"
    heads = "one head for all" if model["shared_head"] else "a head for each modality"
    extras = {
        "transformer_per_modality": "a transformer for each modality",
        "cls_token": "a class token",
        "positional": "positional embeddings",
    }
    parts = [transformer, f"{model['projection']} projections", heads]
    return ", ".join(parts + [words for key, words in extras.items() if model[key]])


def describe_dropped(
    dropped: Mapping[str, Sequence[str]], content: Any, foreign: Sequence[str]
) -> list[str]:
    """Say what of a file is not in the model.

    Args:
        dropped: names of weights, by the reason.
        content: of the file.
        foreign: names of classes in the file that are not known.
    """
    lines = []
    for why, names in dropped.items():
        groups = _groups(names, 2) if len(_groups(names, 2)) <= MOST else _groups(names, 1)
        lines.append(f"dropped   {_first(groups)} ({len(names)} weights): {why}")
    keys = list(content) if isinstance(content, dict) and "state_dict" in content else []
    if beside := [key for key in keys if key != "state_dict"]:
        lines.append(f"dropped   {_first(beside)}: not part of the model")
    if foreign:
        lines.append(f"not made  {_first(foreign)}: objects in the file; only tensors are made")
    return lines


def describe_text(config: Mapping[str, Any]) -> str:
    """Say what embeds sentences, and what is needed for it."""
    spec = config["text_encoder"]
    if "text" not in config["model"]["modalities"]:
        return "text      the model embeds none"
    if spec["path"] is not None:
        return f"text      {spec['name']}, {spec['path']}"
    width = config["model"]["modalities"]["text"]["dim"]
    return (
        f"text      word vectors {width} wide are needed (for the published models {WORD_VECTORS});"
        " give them here with --word-vectors, or to tools/evaluate.py with text_encoder.path=FILE"
    )


def _groups(names: Sequence[str], depth: int) -> list[str]:
    return list(dict.fromkeys(".".join(name.split(".")[:depth]) for name in names))


def _first(names: Sequence[object]) -> str:
    more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
    return ", ".join(map(printable, names[:MOST])) + more
