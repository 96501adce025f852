"""Open a pre-trained model of picture and text: from a folder, or from the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fusion.extract.backbone import import_package
from fusion.models.text.language_model_files import NO_CODE, first_line

PREFIX = "clip:"
TOWERS = ("get_text_features", "get_image_features")
_OF_SENTENCE_TRANSFORMERS = "0_CLIPModel"  # folder of the model within one of theirs


class Opened(NamedTuple):
    """A model and what prepares its inputs, all of transformers."""

    model: Any
    tokenizer: Any
    pictures: Any  # its image processor
    most_tokens: int  # of a text; the rest is cut off
    whole_length: bool  # whether texts are padded to ``most_tokens``, as SigLIP was trained


def is_pretrained(name: object) -> bool:
    """Return whether a name says that it is a model of picture and text."""
    return str(name).startswith(PREFIX)


def full_name(name: str) -> str:
    """Make the path of a folder absolute, for programs that run elsewhere; a hub's name stays."""
    place = name.removeprefix(PREFIX)
    folder = Path(place).expanduser()
    return f"{PREFIX}{folder.absolute()}" if place and folder.is_dir() else name


def open_model(name: str, **options: Any) -> Opened:
    """Open a model that embeds texts and pictures into one space, in float32.

    It runs no code of its folder.

    Args:
        name: ``clip:FOLDER``, or ``clip:NAME`` of a model on the Hugging Face hub.
        options: of a download, those of ``from_pretrained`` of transformers.

    Raises:
        ValueError: it cannot be loaded, lacks a part, or does not embed both; one line.
    """
    place, options = _place(name), {**NO_CODE, **options}
    hf = import_package("transformers")

    def load(what: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:  # of the hub, of the connection, of the files
            raise ValueError(
                f"{name}: no {what} can be loaded ({first_line(error)[:200]}); name a folder as"
                " transformers saves it, with config.json, weights, tokenizer and"
                " preprocessor_config.json, or a model of the Hugging Face hub, such as"
                f" {PREFIX}openai/clip-vit-base-patch32"
            ) from None

    config = load("model", lambda: hf.AutoConfig.from_pretrained(place, **options))
    pictures = load(
        "image processor", lambda: hf.AutoImageProcessor.from_pretrained(place, **options)
    )
    tokenizer = load("tokenizer", lambda: hf.AutoTokenizer.from_pretrained(place, **options))
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):  # transformers made an empty one
        raise ValueError(f"{name} has no tokenizer; add tokenizer.json and tokenizer_config.json")
    model, report = load(
        "model",
        lambda: hf.AutoModel.from_pretrained(
            place, config=config, dtype=torch.float32, output_loading_info=True, **options
        ),
    )
    if lacking := [tower for tower in TOWERS if not hasattr(model, tower)]:
        raise ValueError(
            f"{name} is a model of type {config.model_type!r} without {lacking[0]}; choose one that"
            " embeds texts and pictures, such as CLIP or SigLIP"
        )
    if report["missing_keys"]:
        weight = min(report["missing_keys"])
        raise ValueError(f"{name} lacks the weight {weight}; choose a complete model")
    texts = getattr(config, "text_config", None) or config
    most = min(tokenizer.model_max_length, getattr(texts, "max_position_embeddings", 512))
    whole = config.model_type.startswith("siglip")
    return Opened(model.eval(), tokenizer, pictures, most, whole)


def features_of(made: Any) -> Tensor:
    """Take the embeddings (B, E) out of what a tower returns: a tensor, or a model's output."""
    pooled = made if isinstance(made, Tensor) else getattr(made, "pooler_output", None)
    if pooled is None or pooled.ndim != 2:
        raise ValueError("it gives no single vector of a whole input")
    return pooled.float()


def _place(name: str) -> str:
    """Return a folder, or the name of a model on the hub; ValueError: it can be neither."""
    place = name.removeprefix(PREFIX)
    folder = Path(place).expanduser()
    if place and folder.is_dir():
        inner = folder / _OF_SENTENCE_TRANSFORMERS
        return str(inner if inner.is_dir() and not (folder / "config.json").exists() else folder)
    if not place or place.count("/") > 1 or place.startswith((".", "~", "/")):
        raise ValueError(
            f"{name}: there is no folder {place or '(empty)'}; name the folder of a model, or one"
            f" of the Hugging Face hub, such as {PREFIX}openai/clip-vit-base-patch32"
        )
    return place
