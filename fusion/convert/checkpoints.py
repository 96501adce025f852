"""From a file of the published training to a checkpoint's folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from fusion.builders import build_text_encoder
from fusion.checkpoint import save_checkpoint
from fusion.config import choose
from fusion.convert.avlnet import (
    convert_avlnet_weights,
    detect_avlnet,
    is_avlnet,
    sort_avlnet_weights,
)
from fusion.convert.config import make_config
from fusion.convert.names import convert_eao_weights, sort_eao_weights
from fusion.convert.summary import (
    describe_losses,
    describe_model,
    describe_pooled,
    describe_text,
)
from fusion.convert.variant import Variant, check_is_eao, detect, is_text_video
from fusion.data.untrusted.torch_file import Stored, TorchFile, TorchFileError
from fusion.data.untrusted.unpickler import Foreign, printable
from fusion.files import replace_folder
from fusion.models import MODELS


class NoTextEncoder:
    """Stands for one that is not there yet."""

    def save(self, folder: Path) -> None:
        """Write nothing."""


def convert_checkpoint(
    path: str | Path,
    out: str | Path,
    num_heads: int | None = None,
    word_vectors: str | None = None,
) -> str:
    """Convert a published checkpoint into one that :mod:`fusion.checkpoint` reads.

    No code in the file is run, and nothing of it is made but tensors and plain values. It is mapped
    into memory, so little more is needed than the weights take.

    Args:
        path: the file, as the training of EAO, AVLnet or MCN saves it, or a bare state dict.
        out: the folder to write; empty or not there yet.
        num_heads: attention heads, if the file does not say and they are not 64 wide.
        word_vectors: file of the text encoder, which the folder then refers to, see
            :class:`fusion.models.word_vectors.WordVectorFile`.

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
    config = make_config(out.name, found.model, word_vectors)
    text_encoder = _text_encoder(config, found.model) if word_vectors else NoTextEncoder()
    try:
        with replace_folder(out) as folder:
            save_checkpoint(folder, model, config, text_encoder)
    except SafetensorError as error:
        raise OSError(f"{out} cannot be written: {error}") from None
    count = sum(parameter.numel() for parameter in model.parameters())
    lines.append(f"written   {out}: {count:,} parameters")
    return "\n".join([*lines, describe_text(config)])


def _find(file: TorchFile, num_heads: int | None) -> tuple[Variant, dict[str, Tensor], list[str]]:
    """Detect the model in a file; give its weights under our names and what there is to say."""
    stored = _state_dict(file.content)
    if is_avlnet(stored):
        return _find_avlnet(file, stored)
    check_is_eao(stored)
    at_start = {
        name: _is_at_start(file, stored, f"{name}_norm_layer") for name in ("text", "audio")
    }
    no_audio = is_text_video(file.content, at_start)
    if no_audio is None and not any(name.startswith("audio_token_proj.") for name in stored):
        no_audio = "the file has none of its weights"
    modalities = ["text", "video"] if no_audio else ["text", "video", "audio"]
    kept, dropped = sort_eao_weights(stored, modalities)
    shapes = {name: tensor.shape for name, tensor in stored.items()}
    found = detect(shapes, file.content, not no_audio, num_heads)
    weights = convert_eao_weights(_read(file, {name: stored[name] for name in kept}), modalities)
    lines = [
        f"read      {file.path}: {len(stored)} weights",
        *describe_model(found.model),
        *([f"no audio  {no_audio}"] if no_audio else []),
        *describe_losses(dropped, file.content, file.foreign),
        *(f"recorded  {note}" for note in found.recorded),
        *(f"assumed   {note}" for note in found.assumed),
    ]
    return found, weights, lines


def _find_avlnet(
    file: TorchFile, stored: Mapping[str, Stored]
) -> tuple[Variant, dict[str, Tensor], list[str]]:
    kept, dropped = sort_avlnet_weights(stored)
    found = detect_avlnet({name: tensor.shape for name, tensor in stored.items()})
    weights = convert_avlnet_weights(_read(file, {name: stored[name] for name in kept}))
    lines = [
        f"read      {file.path}: {len(stored)} weights",
        *describe_pooled(found.model),
        *describe_losses(dropped, file.content, file.foreign),
        *(f"assumed   {note}" for note in found.assumed),
    ]
    return found, weights, lines


def _state_dict(content: Any) -> dict[str, Stored]:
    """Take the weights, without ``module.`` before their names, out of what was saved."""
    if isinstance(content, dict):
        content = content.get("state_dict", content)
    if isinstance(content, Foreign):
        raise ValueError(
            f"it holds an object of {printable(content.name)} instead of weights by name; save its"
            " state_dict() where its code is at home"
        )
    if not isinstance(content, dict) or not content:
        raise ValueError("it holds no weights by name; is it a checkpoint?")
    stored = {}
    for name, value in content.items():
        if not (isinstance(name, str) and isinstance(value, Stored)):
            kind = value.name if isinstance(value, Foreign) else type(value).__name__
            raise ValueError(
                f"{printable(str(name))} is no weight but of {printable(kind)}; only"
                " tensors by name are read"
            )
        stored[name.removeprefix("module.")] = value
    if len(stored) < len(content):
        raise ValueError("some weights are in it twice, with and without 'module.'")
    return stored


def _is_at_start(file: TorchFile, stored: Mapping[str, Stored], norm: str) -> bool:
    """Tell whether a LayerNorm is as it is made: ones and zeros."""
    values = {"weight": 1, "bias": 0}
    names = {f"{norm}.{kind}": value for kind, value in values.items()}
    return all(n in stored and bool((file.read(stored[n]) == v).all()) for n, v in names.items())


def _read(file: TorchFile, stored: Mapping[str, Stored]) -> dict[str, Tensor]:
    """Read tensors; those that share data are copied, as each is written for itself."""
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
    """Build the model around the weights.

    Raises:
        ValueError: a weight is missing, unknown or of another shape.
    """
    try:
        with torch.device("meta"):  # shapes only; the file has the values
            model: nn.Module = choose("model", section, MODELS)()
    except RuntimeError as error:
        raise ValueError(f"a model of these widths cannot be built: {error}") from None
    own = model.state_dict()
    for name in sorted(own.keys() | weights.keys()):
        if name not in weights:
            raise ValueError(f"it lacks the weight that is {name} here; the file is not whole")
        if name not in own:
            raise ValueError(f"it has a weight too many: {name}, as it would be here")
        mine, theirs = own[name], weights[name]
        if mine.shape != theirs.shape or mine.is_floating_point() != theirs.is_floating_point():
            raise ValueError(
                f"the weight that is {name} here has the shape {tuple(theirs.shape)}"
                f" ({theirs.dtype}) instead of {tuple(mine.shape)} ({mine.dtype})"
            )
        weights[name] = theirs.to(mine.dtype)
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
