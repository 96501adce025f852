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
    if model["positional"]:  # a token without a position would be an error
        data["max_video_tokens"] = modalities["video"]["max_tokens"]
        max_words = min(max_words, modalities["text"]["max_tokens"])
    text_encoder = {"name": "word2vec_file", "path": word_vectors}
    if word_vectors is None and modalities["text"]["dim"] == CLIP_WIDTH:
        text_encoder = {"name": "clip", "path": CLIP}
    combinations = model["combinations"]
    return {
        "seed": 0,
        "output": f"runs/{name}",
        "data": data,
        "text_encoder": text_encoder | {"max_words": max_words},
        "model": dict(model),
        "loss": {
            "name": "combinatorial",
            "terms": {t: w for t, w in TERMS.items() if {*t.split("|")} <= {*combinations}},
        },
        "trainer": {
            "epochs": 15,
            "batch_size": 2240,  # clips: ten of each of 224 videos
            "learning_rate": 5e-5,
            "schedule": "exponential",
        },
        "evaluation": {},
    }
