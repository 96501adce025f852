"""From a checkpoint of the published code to one of ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from fusion.builders import build_text_encoder
from fusion.checkpoint import find_difference, save_checkpoint
from fusion.config import choose
from fusion.convert.avlnet import detect_avlnet
from fusion.convert.config import make_config
from fusion.convert.names import MODALITIES, convert_weights, is_avlnet, sort_weights
from fusion.convert.summary import describe_dropped, describe_model, describe_text
from fusion.convert.variant import Variant, check_is_eao, detect, is_text_video
from fusion.data.untrusted.torch_file import Stored, TorchFile, TorchFileError
from fusion.data.untrusted.unpickler import Foreign, printable
from fusion.files import replace_folder
from fusion.models import MODELS


class NoTextEncoder:
    """Stands for the text encoder of a checkpoint without word vectors."""

    def save(self, folder: Path) -> None:
        """Write nothing."""


def convert_checkpoint(
    path: str | Path,
    out: str | Path,
    num_heads: int | None = None,
    word_vectors: str | None = None,
) -> str:
    """Convert a published checkpoint into one that :mod:`fusion.checkpoint` reads.

    No code in the file runs. The file is mapped into memory, so little more is needed than the
    weights take.

    Args:
        path: the file, as the training of EAO, AVLnet or MCN saves it, or a bare state dict.
        out: the folder to write; empty or not there yet.
        num_heads: attention heads, if the file does not say and they are not 64 wide.
        word_vectors: file of the text encoder; the folder refers to it, see
            :class:`fusion.models.text_encoders.WordVectorFile`.

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
    """Detect the model in a file; give its weights under our names and lines for the user."""
    stored = _state_dict(file.content)
    shapes = {name: tensor.shape for name, tensor in stored.items()}
    no_audio = None
    if not is_avlnet(stored):
        check_is_eao(stored)
        no_audio = _why_no_audio(file, stored)
    modalities = ["text", "video"] if no_audio else MODALITIES
    kept, dropped = sort_weights(stored, modalities)
    if is_avlnet(stored):
        found = detect_avlnet(shapes)
    else:
        found = detect(shapes, file.content, not no_audio, num_heads)
    weights = convert_weights(_read(file, {name: stored[name] for name in kept}), modalities)
    lines = [
        f"read      {file.path}: {len(stored)} weights",
        *describe_model(found.model),
        *([f"no audio  {no_audio}"] if no_audio else []),
        *describe_dropped(dropped, file.content, file.foreign),
        *(f"recorded  {note}" for note in found.recorded),
        *(f"assumed   {note}" for note in found.assumed),
    ]
    return found, weights, lines


def _why_no_audio(file: TorchFile, stored: Mapping[str, Stored]) -> str | None:
    """Say why a model of EAO embeds no audio; None if it does."""
    at_start = {
        name: _is_at_start(file, stored, f"{name}_norm_layer") for name in ("text", "audio")
    }
    if (why := is_text_video(file.content, at_start)) is not None:
        return why
    if any(name.startswith("audio_token_proj.") for name in stored):
        return None
    return "the file has none of its weights"


def _state_dict(content: Any) -> dict[str, Stored]:
    """Take the weights, without ``module.`` before their names, out of what was saved."""
    if isinstance(content, dict):
        content = content.get("state_dict", content)
    if isinstance(content, Foreign):
        raise ValueError(
            f"it holds an object of {printable(content.name)} instead of weights by name; save its"
            " state_dict() with the code that made it"
        )
    if not isinstance(content, dict) or not content:
        raise ValueError("it holds no weights by name; is it a checkpoint?")
    stored = {}
    for name, value in content.items():
        if not (isinstance(name, str) and isinstance(value, Stored)):
            kind = value.name if isinstance(value, Foreign) else type(value).__name__
            raise ValueError(
                f"{printable(name)} is no weight but of {printable(kind)}; only"
                " tensors by name are read"
            )
        stored[name.removeprefix("module.")] = value
    if len(stored) < len(content):
        raise ValueError("some weights are in it twice, with and without 'module.'")
    return stored


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
    """Build the model around the weights.

    Raises:
        ValueError: a weight is missing, unknown or of another shape.
    """
    try:
        with torch.device("meta"):  # shapes only; the file has the values
            model: nn.Module = choose("model", section, MODELS)()
    except RuntimeError as error:
        raise ValueError(f"a model of these widths cannot be built: {error}") from None
    if different := find_difference(model, weights):
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
