"""From checkpoints of the published code, and word vectors, to files of this project."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from fusion.builders import build_text_encoder
from fusion.checkpoint import save_checkpoint, seal_checkpoint
from fusion.config import choose
from fusion.convert.config import (
    describe_dropped,
    describe_model,
    describe_text,
    make_config,
    make_tsm_config,
)
from fusion.convert.names import MODALITIES, convert_weights, is_avlnet, sort_weights
from fusion.convert.tsm import CLASSIFIER, PREFIX, convert_tsm_weights, detect_tsm, is_tsm
from fusion.convert.variant import Variant, check_is_eao, detect, detect_avlnet, why_no_audio
from fusion.data.untrusted.torch_file import Stored, TorchFile, TorchFileError
from fusion.data.untrusted.unpickler import kind_of
from fusion.data.untrusted.weight_files import find_difference, weights_by_name
from fusion.data.untrusted.word_vectors import read_word_vectors
from fusion.files import replace_folder
from fusion.models import MODELS


def convert_checkpoint(
    path: str | Path, out: str | Path, num_heads: int | None = None, word_vectors: str | None = None
) -> str:
    """Convert a published checkpoint into one that :mod:`fusion.checkpoint` reads.

    No code in the file runs. The file is mapped into memory, so little more is needed than the
    weights take.

    Args:
        path: the file, as the training of EAO, AVLnet, MCN or TSM saves it, or a bare state dict.
        out: the folder to write; empty or not there yet.
        num_heads: attention heads, if the file does not say and they are not 64 wide.
        word_vectors: file of the text encoder, to which the folder refers.

    Returns:
        What was found, dropped, assumed and written, in lines.

    Raises:
        ValueError: the file is damaged or of another kind, or ``out`` is not empty; one line.
        OSError: ``out`` cannot be written.
    """
    path, out = Path(path).expanduser(), Path(out).expanduser().resolve()
    if word_vectors is not None:
        word_vectors = str(Path(word_vectors).expanduser().resolve())
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ValueError(f"{out} exists already and is not empty; name another folder by --out")
    file = TorchFile(path)
    try:
        found, weights, lines = _find(file, num_heads)
        model = _load(found.model, weights)
    except TorchFileError:
        raise
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    reads_text = "text" in found.model.get("modalities", {})
    if found.model["name"] == CLASSIFIER:
        config = make_tsm_config(out.name, found.model)
    else:
        config = make_config(out.name, found.model, word_vectors)
    text_encoder = _text_encoder(config, found.model) if word_vectors and reads_text else None
    try:
        with replace_folder(out) as folder:
            save_checkpoint(folder, model, config, text_encoder)
            seal_checkpoint(folder, model)
    except SafetensorError as error:
        raise OSError(f"{out} cannot be written: {error}") from None
    count = sum(parameter.numel() for parameter in model.parameters())
    lines.append(f"written   {out}: {count:,} parameters")
    return "\n".join([*lines, describe_text(config)])


def convert_word_vectors(path: str | Path, out: str | Path) -> str:
    """Convert a file for :func:`.read_word_vectors` into a new ``.safetensors`` that is mapped.

    Returns a line about what was written.

    Raises:
        ValueError: ``path`` is no such file, or ``out`` is there.
        OSError: ``out`` cannot be written.
    """
    path, out = Path(path).expanduser(), Path(out).expanduser()
    if out.exists():
        raise ValueError(f"{out} exists already; name another file by --out")
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file; check the path")
    with open(path, "rb") as file:
        if kind_of(file.read(512)) == "a safetensors file":
            raise ValueError(
                f"{path} is a safetensors file, not word vectors in word2vec's format; if they are"
                " converted already, name it by text_encoder.path"
            )
    index, vectors = read_word_vectors(path)
    words = sorted((word.encode(), number) for word, number in index.items())
    tensors = {
        "vectors": vectors.numpy()[[number for _, number in words]],
        "letters": np.frombuffer(b"".join(word for word, _ in words), np.uint8),
        "ends": np.cumsum([len(word) for word, _ in words], dtype=np.int64),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{out.name}.new-", dir=out.parent) as folder:
        new = Path(folder) / out.name
        try:
            safetensors.numpy.save_file(tensors, new)
        except SafetensorError as error:
            raise OSError(f"{out} cannot be written: {error}") from None
        os.chmod(new, 0o644)
        os.replace(new, out)
    return f"written   {out}: {len(words):,} words, vectors {vectors.shape[1]} wide"


def _find(file: TorchFile, num_heads: int | None) -> tuple[Variant, dict[str, Tensor], list[str]]:
    """Detect the model in a file; give its weights under our names and lines for the user."""
    stored = weights_by_name(file.content, Stored)
    shapes = {name: tensor.shape for name, tensor in stored.items()}
    if is_tsm(stored):
        found = detect_tsm(shapes)
        converted = convert_tsm_weights(_read(file, stored)).items()
        weights = {f"{PREFIX}{name}": tensor for name, tensor in converted}
        return found, weights, _describe(file, len(stored), found)
    no_audio = None
    if not is_avlnet(stored):
        check_is_eao(stored)
        norms = {name: f"{name}_norm_layer" for name in ("text", "audio")}
        at_start = {name: _is_at_start(file, stored, norm) for name, norm in norms.items()}
        no_audio = why_no_audio(file.content, stored, at_start)
    modalities = ["text", "video"] if no_audio else MODALITIES
    kept, dropped = sort_weights(stored, modalities)
    if is_avlnet(stored):
        found = detect_avlnet(shapes)
    else:
        found = detect(shapes, file.content, not no_audio, num_heads)
    weights = convert_weights(_read(file, {name: stored[name] for name in kept}), modalities)
    return found, weights, _describe(file, len(stored), found, dropped, no_audio)


def _describe(
    file: TorchFile,
    count: int,
    found: Variant,
    dropped: Mapping[str, list[str]] | None = None,
    no_audio: str | None = None,
) -> list[str]:
    """Say in lines what was read, found, dropped and assumed."""
    return [
        f"read      {file.path}: {count} weights",
        *describe_model(found.model),
        *([f"no audio  {no_audio}"] if no_audio else []),
        *describe_dropped(dropped or {}, file.content, file.foreign),
        *(f"recorded  {note}" for note in found.recorded),
        *(f"assumed   {note}" for note in found.assumed),
    ]


def _is_at_start(file: TorchFile, stored: Mapping[str, Stored], norm: str) -> bool:
    """Tell whether a LayerNorm is as before training: ones and zeros."""
    names = {f"{norm}.weight": 1, f"{norm}.bias": 0}
    return all(n in stored and bool((file.read(stored[n]) == v).all()) for n, v in names.items())


def _read(file: TorchFile, stored: Mapping[str, Stored]) -> dict[str, Tensor]:
    """Read tensors; copy those that share data, as each is written alone."""
    weights: dict[str, Tensor] = {}
    seen: set[str] = set()
    size = 0
    for name, one in stored.items():
        tensor = file.read(one)
        size += tensor.nbytes
        if size > file.size:
            raise ValueError(f"its weights overlap, as they take more than its {file.size:,} bytes")
        weights[name] = tensor.clone() if one.data.key in seen else tensor
        seen.add(one.data.key)
    return weights


def _load(section: Mapping[str, Any], weights: dict[str, Tensor]) -> nn.Module:
    """Build the model around the weights; a ValueError says which weight does not fit."""
    try:
        with torch.device("meta"):  # shapes only; the file has the values
            model: nn.Module = choose("model", section, MODELS)()
    except RuntimeError as error:
        raise ValueError(f"a model of these widths cannot be built: {error}") from None
    if different := find_difference(model.state_dict(), weights):
        raise ValueError(f"it is no whole model of this architecture: {different}")
    own = model.state_dict()
    weights = {name: weight.to(own[name].dtype) for name, weight in weights.items()}
    model.load_state_dict(weights, assign=True)
    return model


def _text_encoder(config: Mapping[str, Any], model: Mapping[str, Any]) -> Any:
    encoder = build_text_encoder(config["text_encoder"], sentences=(), seed=config["seed"])
    width, needed = encoder("").shape[-1], model["modalities"]["text"]["dim"]
    if width != needed:
        raise ValueError(
            f"{config['text_encoder']['path']} has word vectors of width {width}, but the model"
            f" takes {needed}"
        )
    return encoder
