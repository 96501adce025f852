"""What a user may give to :meth:`fusion.Model.encode`, sorted by modality.

Shapes: N items, T pictures of H x W pixels, S samples, L tokens of width D.
"""

from __future__ import annotations

import dataclasses
import difflib
import tempfile
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusion.data.captions.match import ENDINGS
from fusion.data.datasets.sampling import check_finite
from fusion.tokens import Tokens

MOST_DOWNLOAD = 2**33  # bytes of a file behind an address
URL = ("http://", "https://", "s3://", "gs://", "hf://", "file://")


@dataclasses.dataclass
class Item:
    """One thing to embed: for each modality a text, a media file, or finished features (L, D).

    ``name`` is for messages. ``whole`` says that it is a media file of which every modality that
    is in it counts.
    """

    name: str
    parts: dict[str, str | Path | Tensor]
    whole: bool = False


class Inputs:
    """Sorts what a user gives into items; arrays and addresses become temporary files.

    Args:
        modalities: names of those that the model embeds.
        of_films: names of those that are made of a film.

    Use it in a ``with`` statement, which removes the temporary files at its end.
    """

    def __init__(self, modalities: Sequence[str], of_films: Sequence[str]) -> None:
        self.modalities, self.of_films = tuple(modalities), tuple(of_films)

    def __enter__(self) -> Inputs:
        self._folder = tempfile.TemporaryDirectory(prefix="fusion-")
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def items(self, given: Any) -> tuple[list[Item], bool]:
        """Return the items, and whether a single one was given instead of a list.

        Raises:
            ValueError: a value cannot be used; one line that shows it.
        """
        if isinstance(given, Mapping) and given:
            lists = {k: v for k, v in given.items() if isinstance(v, list)}
            if lists:
                return self._columns(given, lists), False
        if isinstance(given, list):
            if not given:
                raise ValueError("there is nothing to embed: the list is empty")
            return [self._item(one, f"item {place}") for place, one in enumerate(given, 1)], False
        return [self._item(given, "the input")], True

    def _columns(self, given: Mapping[str, Any], lists: Mapping[str, list[Any]]) -> list[Item]:
        """Read ``{"video": [a, b], "text": [c, d]}``, items by modality."""
        sizes = {name: len(values) for name, values in lists.items()}
        if len(lists) < len(given) or len(set(sizes.values())) > 1:
            said = ", ".join(f"{k} {sizes.get(k, 'is no list')}" for k in given)
            raise ValueError(f"all modalities need lists of one length; got {said}")
        count = next(iter(sizes.values()))
        if not count:
            raise ValueError("there is nothing to embed: the lists are empty")
        rows = [{name: values[i] for name, values in lists.items()} for i in range(count)]
        return [self._item(row, f"item {place}") for place, row in enumerate(rows, 1)]

    def _item(self, given: Any, where: str) -> Item:
        if isinstance(given, str) and not _is_place(given):
            return Item(where, {self._known("text", where): given})
        if isinstance(given, str | Path):
            file = self._file(str(given), where)
            return Item(str(given), dict.fromkeys(self.of_films, file), whole=True)
        if not isinstance(given, Mapping):
            if not _is_picture(given):
                raise ValueError(
                    f"{where} is {_kind(given)}; give a text, the path of a media file, a picture,"
                    " or a dict such as {'video': 'a.mp4', 'text': 'a dog'}"
                )
            given = {"video": given}
        if not given:
            raise ValueError(f"{where} is an empty dict; name at least one modality")
        parts = {self._known(k, where): self._part(k, v, where) for k, v in given.items()}
        return Item(where, {name: part for name, part in parts.items() if part is not None})

    def _known(self, name: Any, where: str) -> str:
        if name in self.modalities:
            return str(name)
        near = difflib.get_close_matches(str(name), self.modalities, n=1)
        way = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(self.modalities)}"
        raise ValueError(f"{where} has {name!r}, which the model does not embed; {way}")

    def _part(self, name: str, value: Any, where: str) -> Any:
        """Read the value of one modality; None: the item lacks it."""
        if value is None:
            return None
        if isinstance(value, Tokens):
            if value.num_clips != 1:
                raise ValueError(f"{where}: {name} has tokens of {value.num_clips} clips, not of 1")
            return value.values
        if isinstance(value, Tensor | np.ndarray) and value.ndim == 2:
            tokens = torch.as_tensor(value)
            check_finite(tokens.float(), f"{where}: {name}")
            return tokens
        if name == "text":
            if not isinstance(value, str):
                raise ValueError(f"{where}: text is {_kind(value)}; write a text")
            return value
        if isinstance(value, str | Path):
            return self._file(str(value), f"{where}: {name}")
        if name == "video" and _is_picture(value):
            return self._pictures(np.asarray(value.convert("RGB"))[None], 1.0, where)
        if isinstance(value, tuple) and len(value) == 2 and name in ("video", "audio"):
            write = self._pictures if name == "video" else self._sound
            return write(_array(value[0], where), float(value[1]), where)
        example = {"video": "(frames, 25.0), frames a second", "audio": "(samples, 16000), hertz"}
        raise ValueError(
            f"{where}: {name} is {_kind(value)}; give a path, finished tokens (L, D)"
            + (f", or an array with its rate: {example[name]}" if name in example else "")
        )

    def _file(self, place: str, where: str) -> Path:
        if place.startswith(URL):
            return self._download(place, where)
        path = Path(place).expanduser()
        if not path.is_file():
            raise ValueError(
                f"{where}: there is no file {place}; check the path (a text that ends like a file"
                " is given as {'text': …})"
            )
        return path

    def _download(self, address: str, where: str) -> Path:
        import fsspec  # type: ignore[import-untyped]

        target = self._new(Path(address.partition("?")[0]).suffix)
        try:
            with fsspec.open(address, "rb") as source, open(target, "wb") as file:
                while block := source.read(2**20):
                    file.write(block)
                    if file.tell() > MOST_DOWNLOAD:
                        raise ValueError(
                            f"it has more than {MOST_DOWNLOAD >> 20} MiB; load it first"
                        )
        except Exception as error:  # each kind of storage has its own
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"{where}: {address} cannot be read ({reason})") from None
        return target

    def _pictures(self, frames: NDArray[Any], rate: float, where: str) -> Path:
        """Write (T, H, W, 3) uint8 pictures, without loss."""
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
            raise ValueError(
                f"{where}: frames must be (T, H, W, 3) uint8 RGB; got {frames.shape} of"
                f" {frames.dtype}"
            )
        _check_rate(rate, where)
        path = self._new(".mkv")
        with av.open(str(path), "w", format="matroska") as container:
            exact = Fraction(rate).limit_denominator(1001)
            stream = container.add_stream("ffv1", rate=exact)
            stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "bgr0"
            for place, picture in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                frame.pts, frame.time_base = place, 1 / exact
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    def _sound(self, samples: NDArray[Any], rate: float, where: str) -> Path:
        """Write (S,) samples within [-1, 1], or (S, channels), as float32."""
        if samples.dtype.kind != "f" or samples.ndim not in (1, 2) or not len(samples):
            raise ValueError(
                f"{where}: samples must be (S,) or (S, channels) floats within [-1, 1]; got"
                f" {samples.shape} of {samples.dtype}"
            )
        if rate != int(rate):
            raise ValueError(f"{where}: samples a second must be a whole number; got {rate}")
        _check_rate(rate, where)
        mono = samples if samples.ndim == 1 else samples.mean(axis=1)
        path = self._new(".wav")
        with av.open(str(path), "w", format="wav") as container:
            stream = container.add_stream("pcm_f32le", rate=int(rate), layout="mono")
            block = np.ascontiguousarray(mono[None], np.float32)
            frame = av.AudioFrame.from_ndarray(block, format="flt", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = int(rate), 0, Fraction(1, int(rate))
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    def _new(self, ending: str) -> Path:
        number = sum(1 for _ in Path(self._folder.name).iterdir())
        return Path(self._folder.name) / f"{number}{ending}"


def _is_place(text: str) -> bool:
    """Return whether a string means a file: it is an address, or ends like a media file."""
    if text.startswith(URL):
        return True
    return "\n" not in text and Path(text).suffix.lower() in ENDINGS


def _is_picture(value: Any) -> bool:
    return hasattr(value, "convert") and hasattr(value, "size")  # a picture of PIL


def _array(value: Any, where: str) -> NDArray[Any]:
    if isinstance(value, Tensor):
        return value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        return value
    raise ValueError(f"{where}: {_kind(value)} is no array; give one of numpy or torch")


def _check_rate(rate: float, where: str) -> None:
    if not 0 < rate < float("inf"):
        raise ValueError(f"{where}: a rate is above 0; got {rate}")


def _kind(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return type(value).__name__ + (f" of shape {tuple(shape)}" if shape is not None else "")
