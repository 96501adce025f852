"""The config of a converted model: how it was pre-trained, and MSR-VTT to evaluate it on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fusion.models.text_encoders import PUBLISHED_CLIP as CLIP

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
