"""The config of a converted model (pre-training; MSR-VTT for evaluation), and its description."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fusion.config import flatten
from fusion.data.untrusted.unpickler import printable
from fusion.models.text.language_model_files import PUBLISHED_CLIP as CLIP
from fusion.words import PUBLISHED

FEATURES = {1024: "s3d", 512: "clip"}  # by their width; 4096: of ResNets, the default
CLIP_WIDTH = 512  # of its text tokens; word vectors are 300 wide
MAX_WORDS = 20
# Published pre-training by the kind of model: terms of the loss with their weights; epochs, videos
# in a batch, clips of each, learning rate.
PRETRAINING: dict[str, tuple[dict[str, float], tuple[int, int, int, float]]] = {
    "eao": (
        {"t|v": 1.0, "t|a": 0.1, "v|a": 0.1, "t|va": 0.1, "v|ta": 0.1, "a|tv": 0.1},
        (15, 224, 10, 5e-5),
    ),
    "mcn": ({}, (30, 128, 32, 1e-4)),
    "avlnet": ({"v|a": 1.0}, (30, 128, 32, 1e-3)),
    "avlnet with text": ({"t|v": 1.0, "t|a": 1.0, "v|a": 1.0}, (15, 256, 32, 2.5e-4)),
    "avlnet with text and audio fused": ({"v|ta": 1.0}, (15, 64, 32, 1e-4)),
}


def make_config(name: str, model: Mapping[str, Any], word_vectors: str | None) -> dict[str, Any]:
    """Make the config of a converted model.

    ``name`` is the folder in which a training with this config would write; ``model`` the ``model``
    section; ``word_vectors`` the file of the text encoder, if there is one.
    """
    modalities = model["modalities"]
    data: dict[str, Any] = {"name": "msrvtt"}
    if (features := FEATURES.get(modalities["video"]["dim"])) is not None:
        data["features"] = features
    max_words = MAX_WORDS
    if model["name"] != "eao":
        data["max_video_tokens"] = 0  # one, the maximum over time
    if model.get("positional"):  # a token without a position would be an error
        data["max_video_tokens"] = modalities["video"]["max_tokens"]
        max_words = min(max_words, modalities["text"]["max_tokens"])
    text_encoder = {"name": "word2vec_file", "path": word_vectors, "tokenizer": PUBLISHED}
    if word_vectors is None and modalities.get("text", {}).get("dim") == CLIP_WIDTH:
        text_encoder = {"name": "clip", "path": CLIP}
    return {
        "seed": 0,
        "output": f"runs/{name}",
        "data": data,
        "text_encoder": text_encoder | {"max_words": max_words},
        "model": dict(model),
        **_training(model),
        "evaluation": {},
    }


def make_tsm_config(name: str, model: Mapping[str, Any]) -> dict[str, Any]:
    """Make the config of a converted TSM, with the trainer of its published training.

    The films are the user's to name, by ``data.folder`` or other keys.
    """
    trainer = {"epochs": 50, "batch_size": 64, "optimizer": "sgd", "learning_rate": 0.01}
    return {
        "task": "classification",
        "seed": 0,
        "output": f"runs/{name}",
        "data": {"name": "labelled_films"},
        "text_encoder": None,
        "model": dict(model),
        "loss": {"name": "classes"},
        "trainer": trainer | {"weight_decay": 1e-4},
        "evaluation": {},
    }


def _training(model: Mapping[str, Any]) -> dict[str, Any]:
    """Give the loss and the trainer of the published pre-training."""
    kind, modalities = model["name"], model["modalities"]
    if kind == "avlnet" and "text" in modalities:
        kind += " with text and audio fused" if model["fuse_text_audio"] else " with text"
    terms, (epochs, videos, clips, rate) = PRETRAINING[kind]
    trainer: dict[str, Any] = {"epochs": epochs, "batch_size": videos * clips}
    trainer |= {"learning_rate": rate, "schedule": "exponential"}
    loss: dict[str, Any] = {"name": "mcn" if kind == "mcn" else "combinatorial"}
    if kind == "mcn":
        trainer |= {"schedule": "cosine", "warmup_steps": 5000}
    if kind == "eao":
        embedded = {*model["combinations"]}
        terms = {term: weight for term, weight in terms.items() if {*term.split("|")} <= embedded}
    elif kind != "mcn":
        loss["contrastive"] = "mms_dot"
    if terms:
        loss["terms"] = terms
    if kind != "eao":  # as in the code of AVLnet and MCN, clips without words or sound take part
        loss["presence"] = {name: "video" for name in ("text", "audio") if name in modalities}
    return {"loss": loss, "trainer": trainer}


# --- What the conversion prints: lines that begin with what was found, dropped or assumed ---

WORD_VECTORS = "GoogleNews-vectors-negative300.bin"  # of the published models
MOST = 6  # names in a line


def describe_model(model: Mapping[str, Any]) -> list[str]:
    """Say which model was found, by the keys of its config: a line a modality, then all else."""
    rest = {key: value for key, value in model.items() if key not in ("name", "modalities")}
    sections = {**model.get("modalities", {}), model["name"]: rest}
    return [
        f"found     {name}: {', '.join(f'{k} {v}' for k, v in flatten(section).items())}"
        for name, section in sections.items()
    ]


def describe_dropped(
    dropped: Mapping[str, Sequence[str]], content: Any, foreign: Sequence[str]
) -> list[str]:
    """Say what of a file is not in the model.

    ``dropped`` are names of weights by the reason, ``content`` is that of the file, ``foreign`` are
    names of unknown classes in it.
    """
    lines = []
    for why, names in dropped.items():
        groups = _groups(names, 2) if len(_groups(names, 2)) <= MOST else _groups(names, 1)
        lines.append(f"dropped   {_first(groups)} ({len(names)} weights): {why}")
    keys = list(content) if isinstance(content, dict) and "state_dict" in content else []
    if beside := [key for key in keys if key != "state_dict"]:
        lines.append(f"dropped   {_first(beside)}: not part of the model")
    if foreign:
        lines.append(f"ignored   {_first(foreign)}: objects that are no tensors")
    return lines


def describe_text(config: Mapping[str, Any]) -> str:
    """Say what embeds sentences, and what is needed for it."""
    spec = config["text_encoder"]
    if spec is None or "text" not in config["model"]["modalities"]:
        return "text      the model embeds none"
    if spec["path"] is not None:
        return f"text      {spec['name']}, {spec['path']}"
    width = config["model"]["modalities"]["text"]["dim"]
    return (
        f"text      word vectors {width} wide are needed (for the published models {WORD_VECTORS});"
        " give them here with --word-vectors, or to fusion evaluate with text_encoder.path=FILE"
    )


def _groups(names: Sequence[str], depth: int) -> list[str]:
    return list(dict.fromkeys(".".join(name.split(".")[:depth]) for name in names))


def _first(names: Sequence[object]) -> str:
    more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
    return ", ".join(map(printable, names[:MOST])) + more
