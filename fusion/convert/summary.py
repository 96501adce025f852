"""What the conversion says: a line begins with what is known, lost, assumed or missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fusion.data.untrusted.unpickler import printable
from fusion.models.davenet import WIDTHS

WORD_VECTORS = "GoogleNews-vectors-negative300.bin"  # of the published models
MOST = 6  # things named in a line


def describe_pooled(model: Mapping[str, Any]) -> list[str]:
    """Say what was found of AVLnet or MCN, in lines."""
    kind = {"mcn": "MCN", "avlnet": "AVLnet"}[model["name"]]
    if model["name"] == "mcn":
        kind += f", with reconstruction {model['reconstruction_dim']} wide"
    elif model["fuse_text_audio"]:
        kind += "-Text, text and audio fused"
    elif "text" in model["modalities"]:
        kind += "-Text, three branches"
    return [
        f"found     {', '.join(_inputs(model))}",
        f"found     {kind}, embeddings {model['embedding_dim']} wide",
    ]


def describe_model(model: Mapping[str, Any]) -> list[str]:
    """Say what was found of EAO, in lines."""
    inputs = _inputs(model)
    heads = "one head for all" if model["shared_head"] else "a head for each modality"
    count, width = model["num_blocks"], model["token_dim"]
    transformer = f"{count} transformer block{'' if count == 1 else 's'}, {width} wide"
    if count:
        transformer += f" with perceptrons of {round(model['mlp_ratio'] * width)}"
    extras = {
        "transformer_per_modality": "a transformer for each modality",
        "cls_token": "a class token",
        "positional": "positional embeddings",
    }
    parts = [transformer, f"{model['projection']} projections", heads]
    parts += [words for key, words in extras.items() if model[key]]
    return [
        f"found     {', '.join(inputs)}",
        f"found     {', '.join(parts)}",
        f"found     embeddings {model['embedding_dim']} wide of {', '.join(model['combinations'])}",
    ]


def describe_losses(
    dropped: Mapping[str, Sequence[str]], content: Any, foreign: Sequence[str]
) -> list[str]:
    """Say what of a file is not in the model.

    Args:
        dropped: names of weights, by the reason.
        content: of the file.
        foreign: what the file mentions and nobody called.
    """
    lines = []
    for why, names in dropped.items():
        groups = _groups(names, 2) if len(_groups(names, 2)) <= MOST else _groups(names, 1)
        lines.append(f"dropped   {_first(groups)} ({len(names)} weights): {why}")
    keys = list(content) if isinstance(content, dict) and "state_dict" in content else []
    if beside := [str(key) for key in keys if key != "state_dict"]:
        lines.append(f"dropped   {_first(beside)}: not part of the model")
    if foreign:
        lines.append(f"not made  {_first(foreign)}: named in the file; only tensors are made")
    return lines


def describe_text(config: Mapping[str, Any]) -> str:
    """Say what embeds sentences, and what is needed for it."""
    spec = config["text_encoder"]
    if "text" not in config["model"]["modalities"]:
        return "text      the model embeds none"
    width = config["model"]["modalities"]["text"]["dim"]
    if spec["path"] is not None:
        return f"text      {spec['name']}, {spec['path']}"
    return (
        f"text      word vectors {width} wide are needed (of the published models {WORD_VECTORS});"
        " name them here by --word-vectors or to tools/evaluate.py by text_encoder.path=FILE"
    )


def _inputs(model: Mapping[str, Any]) -> list[str]:
    """Describe the modalities that a model takes."""
    inputs = []
    for name, spec in model["modalities"].items():
        if encoder := spec.get("encoder"):
            widths = encoder.get("widths", WIDTHS[encoder["version"]])
            words = (
                f"{name} (DAVEnet version {encoder['version']}, {widths[0]} to {widths[-1]} wide)"
            )
        else:
            words = f"{name} ({spec['dim']} wide)"
        inputs.append(words + (f" of {spec['max_tokens']} tokens" if "max_tokens" in spec else ""))
    return inputs


def _groups(names: Sequence[str], depth: int) -> list[str]:
    return list(dict.fromkeys(".".join(name.split(".")[:depth]) for name in names))


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
    return ", ".join(map(printable, names[:MOST])) + more
