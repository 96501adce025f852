"""Image and sound models of transformers as backbones: ``hf:FOLDER_OR_NAME``.

A picture gives what the model makes of a whole picture: its projected or pooled output. Sound gives
a row for each second: of a model of sequences (wav2vec2, Whisper) the mean of its outputs in that
second, of any other (AST, CLAP) its output for the two seconds that begin there.

Shapes: B pictures of H x W, S samples, R rows of width D.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fusion.data.media.pictures import Sampling
from fusion.data.media.sound import Hearing
from fusion.extract.backbone import Backbone, Source, import_package
from fusion.extract.weights import RANDOM, name_weights

PREFIX = "hf:"
_SCALERS = {1: "lanczos", 2: "bilinear", 3: "bicubic"}  # by the numbers of PIL
_UNUSED = ("masked_spec_embed",)  # weights of training alone, which many files lack
_OPTIONS: dict[str, Any] = {"trust_remote_code": False}  # run no code of a model's folder
_SEQUENCE = 10  # seconds of sound at a time that a model of sequences sees, unless it says another
_POOLED = 2  # seconds of sound that any other model sees for a row


def image_backbone(name: str, source: Source) -> Backbone:
    """Build an image model; ValueError: it cannot be loaded, or gives no feature of a picture."""
    place = _place(name, source)
    settings: Any = _load(
        place, source, lambda hf: hf.AutoImageProcessor.from_pretrained(place, **_OPTIONS)
    )
    network = _Pooled(_model(place, source), "get_image_features", "pixel_values")
    size, crop = dict(settings.size), dict(getattr(settings, "crop_size", None) or {})
    if shorter := size.get("shortest_edge"):
        has_crop = getattr(settings, "do_center_crop", False) and crop
        resize, side = shorter, (crop["height"] if has_crop else shorter)
    else:
        resize, side = (size["height"], size["width"]), None
    way = _SCALERS.get(int(settings.resample or 0), "bicubic")
    sampling = Sampling(1, resize, side, interpolation=way)
    factor = settings.rescale_factor if settings.do_rescale else 1.0
    mean, std = (0.0,) * 3, (1.0,) * 3
    if settings.do_normalize:
        mean, std = settings.image_mean, settings.image_std
    scale = [x / factor for x in mean], [x / factor for x in std]
    with torch.inference_mode():
        made = network(torch.zeros(1, 3, *sampling.picture_size(16, 9)))
    return Backbone(_full_name(name), network, sampling, made.shape[1], *scale, source)


class SoundBackbone:
    """Computes rows of sound; ``dim`` is D, and ``weights`` as those of a :class:`Backbone`.

    Raises:
        ValueError: the model cannot be loaded, or hears nothing.
    """

    def __init__(self, name: str, source: Source) -> None:
        self.name, place = _full_name(name), _place(name, source)
        self._extractor: Any = _load(
            place, source, lambda hf: hf.AutoFeatureExtractor.from_pretrained(place, **_OPTIONS)
        )
        model = _model(place, source)
        if not hasattr(self._extractor, "sampling_rate"):
            raise ValueError(f"--features-audio: {name} is no model of sound; choose another one")
        if getattr(model.config, "is_encoder_decoder", False):
            model = model.get_encoder()
        self.network = _Pooled(model, "get_audio_features", None)
        self.weights = RANDOM if source.random and not source.file else name_weights(self.network)
        self._device, rate = torch.device("cpu"), int(self._extractor.sampling_rate)
        chunk = getattr(self._extractor, "chunk_length", None)  # Whisper's, padded to it
        self._covers: float | None = chunk
        made = self._outputs(np.zeros(rate, np.float32), rate)
        self.dim, self._pooled = made.shape[-1], made.ndim == 2
        seconds = _POOLED if self._pooled else int(chunk or _SEQUENCE)
        self.sampling = Hearing(rate, seconds, 1 if self._pooled else seconds)

    def to(self, device: torch.device) -> SoundBackbone:
        """Move the network to a device."""
        self._device, self.network = device, self.network.to(device)
        return self

    def compute(self, samples: np.ndarray) -> Tensor:
        """Compute the rows of a stretch of sound, (S,) float32: (R, D), R of the seconds begun."""
        rate = self.sampling.rate
        made = self._outputs(samples, rate).float().cpu()
        if self._pooled:
            return made
        seconds = len(samples) / rate
        count, outputs = max(1, math.ceil(seconds)), made[0]  # (T, D)
        covered = self._covers or max(1.0, seconds)
        known = outputs[: max(1, math.ceil(len(outputs) * seconds / covered))]
        second = ((torch.arange(len(known)) + 0.5) * covered / len(outputs)).long()
        second = second.clamp(max=count - 1)
        second[-1] = count - 1  # a last second of a few samples has an output too
        rows = torch.zeros(count, self.dim).index_add_(0, second, known)
        return rows / torch.bincount(second, minlength=count)[:, None]

    @torch.inference_mode()
    def _outputs(self, samples: np.ndarray, rate: int) -> Tensor:
        """Call the model: (1, D) of a whole, or (1, T, D); at least a second, then silence."""
        padded = np.pad(samples, (0, max(0, rate - len(samples))))
        inputs = self._extractor([padded], sampling_rate=rate, return_tensors="pt")
        given = {k: v.to(self._device) for k, v in inputs.items() if k != "attention_mask"}
        made: Tensor = self.network(given, sequence=True)
        return made


class _Pooled(nn.Module):
    """A model, called for its features: ``method`` gives them if it has one."""

    def __init__(self, model: nn.Module, method: str, key: str | None) -> None:
        super().__init__()
        self.model, self._method, self._key = model, method, key
        self._by_token = getattr(model, "pooler", 0) is None  # see _model

    def forward(self, values: Any, sequence: bool = False) -> Tensor:
        """Return (B, D); with ``sequence`` (B, T, D) of a model that has no output of a whole."""
        given = {self._key: values} if self._key else values
        made = getattr(self.model, self._method, self.model)(**given)
        pooled = made if isinstance(made, Tensor) else getattr(made, "pooler_output", None)
        if pooled is not None:
            return pooled.flatten(1)
        states: Tensor = made.last_hidden_state
        if sequence:
            return states
        return states[:, 0] if self._by_token else states.mean(dim=1)


def _model(place: str, source: Source) -> Any:
    """Load a model; weights that its file lacks are an error, except for a pooler, left out."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if source.random and not source.file:
            return _load(
                place, source, lambda hf: hf.AutoModel.from_config(_config(hf, place))
            ).eval()
        model, report = _load(
            place,
            source,
            lambda hf: hf.AutoModel.from_pretrained(place, output_loading_info=True, **_OPTIONS),
        )
    lacking = [k for k in report["missing_keys"] if k not in _UNUSED]
    if lacking and all(k.startswith("pooler.") for k in lacking):
        model.pooler, lacking = None, []
    if lacking:
        raise ValueError(f"{place} lacks the weight {min(lacking)}; choose a complete model")
    return model.eval()


def _config(hf: Any, place: str) -> Any:
    return hf.AutoConfig.from_pretrained(place, **_OPTIONS)


def _load(place: str, source: Source, load: Callable[[Any], Any]) -> Any:
    """Call a function of transformers; ValueError in one line if it fails."""
    transformers = import_package("transformers")
    try:
        return load(transformers)
    except Exception as error:  # of the hub, of the connection, of the files
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
        option = "audio" if source.field == "sound" else source.field
        raise ValueError(
            f"--features-{option}: no such model of transformers can be loaded from {place}"
            f" ({reason}); name a folder with its config, weights and preprocessor_config.json, or"
            " a model on the Hugging Face hub"
        ) from None


def _place(name: str, source: Source) -> str:
    return str(source.file or Path(name.removeprefix(PREFIX)).expanduser())


def _full_name(name: str) -> str:
    """Make the path of a folder absolute; a name on the hub stays."""
    folder = Path(name.removeprefix(PREFIX)).expanduser()
    return f"{PREFIX}{folder.resolve()}" if folder.is_dir() else name
