"""The config of a converted model: how it was pre-trained, and MSR-VTT to evaluate it on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fusion.models.clip_text import PUBLISHED as CLIP

# Weights of the loss's terms in the published pre-training.
TERMS = {"t|v": 1.0, "t|a": 0.1, "v|a": 0.1, "t|va": 0.1, "v|ta": 0.1, "a|tv": 0.1}
FEATURES = {1024: "s3d", 512: "clip"}  # by their width; 4096: of ResNets, the default
CLIP_WIDTH = 512  # of its text tokens; word vectors are 300 wide
MAX_WORDS = 20


def make_config(name: str, model: Mapping[str, Any], word_vectors: str | None) -> dict[str, Any]:
    """Write the config of a converted model.

    Args:
        name: of the folder in which a training with this config would write.
        model: the ``model`` section.
        word_vectors: file of the text encoder, if there is one.
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
    text_encoder = {"name": "word2vec_file", "path": word_vectors}
    text_width = modalities.get("text", {}).get("dim")
    if word_vectors is None and text_width == CLIP_WIDTH:
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


def _training(model: Mapping[str, Any]) -> dict[str, Any]:
    """Give the loss and the training that were published; a batch is videos x clips of each."""
    if model["name"] == "mcn":
        trainer = {"epochs": 30, "batch_size": 128 * 32, "learning_rate": 1e-4}
        schedule = {"schedule": "cosine", "warmup_steps": 5000}
        return {"loss": {"name": "mcn"} | _presence(model), "trainer": trainer | schedule}
    if model["name"] == "avlnet":
        return _training_of_avlnet(model)
    embedded = model["combinations"]
    terms = {t: w for t, w in TERMS.items() if {*t.split("|")} <= {*embedded}}
    trainer = {"epochs": 15, "batch_size": 224 * 10, "learning_rate": 5e-5}
    return {
        "loss": {"name": "combinatorial", "terms": terms},
        "trainer": trainer | {"schedule": "exponential"},
    }


def _training_of_avlnet(model: Mapping[str, Any]) -> dict[str, Any]:
    if model["fuse_text_audio"]:
        pairs, numbers = ["v|ta"], (15, 64 * 32, 1e-4)
    elif "text" in model["modalities"]:
        pairs, numbers = ["t|v", "t|a", "v|a"], (15, 256 * 32, 2.5e-4)
    else:
        pairs, numbers = ["v|a"], (30, 128 * 32, 1e-3)
    terms = dict.fromkeys(pairs, 1.0)
    trainer = dict(zip(("epochs", "batch_size", "learning_rate"), numbers, strict=True))
    return {
        "loss": {"name": "combinatorial", "contrastive": "mms_dot", "terms": terms}
        | _presence(model),
        "trainer": trainer | {"schedule": "exponential"},
    }


def _presence(model: Mapping[str, Any]) -> dict[str, Any]:
    """Have clips without words or sound take part, as in AVLnet's and MCN's own code."""
    names = [name for name in ("text", "audio") if name in model["modalities"]]
    return {"presence": dict.fromkeys(names, "video")}
