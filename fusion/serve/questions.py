"""From files that were uploaded to a question that the model embeds.

No file of a stranger is decoded in this process: a model of ours takes its films through a
:class:`.LimitedDecoder`; another model takes arrays that the decoder made.
"""

from __future__ import annotations

import contextlib
import math
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion.data.media.pictures import Sampling
from fusion.inference.items import Inputs
from fusion.serve.decoding import LimitedDecoder
from fusion.serve.schemas import Refused

SIDE = 360  # pixels of the shorter side, for models that do not say what they need
RATE = 16_000  # samples of sound a second


class Question(NamedTuple):
    """What :meth:`fusion.Model.encode` takes."""

    parts: dict[str, Any]  # by modality
    start: float  # seconds
    end: float | None
    is_timed: bool  # it has more than a picture


class Media:
    """Reads uploads for a model.

    Args:
        model: that embeds them.
        decoder: reads the files.
    """

    def __init__(self, model: Any, decoder: LimitedDecoder) -> None:
        self.model, self.decoder = model, decoder
        self._maker = getattr(model, "maker", None)
        self._loading = threading.Lock()

    def warm(self) -> None:
        """Start the first decoder."""
        self.decoder.warm()

    @contextlib.contextmanager
    def read(
        self, words: str, files: dict[str, Path], start: float, end: float | None
    ) -> Iterator[Question]:
        """Read the files of a question; what is made of them is deleted afterwards.

        Raises:
            Refused: 400 or 422 the question makes no sense, or see :class:`.LimitedDecoder`.
        """
        self._check(files, start, end)
        sources = {name: files[name] for name in ("video", "audio") if name in files}
        if "video" in files and "audio" in self.model.modalities:
            sources.setdefault("audio", files["video"])
        if "video" not in self.model.modalities:
            sources.pop("video", None)
        parts: dict[str, Any] = {"text": words} if words.strip() else {}
        with (
            Inputs(self.model.modalities, ("video", "audio")) as inputs,
            contextlib.ExitStack() as stack,
        ):
            if "picture" in files:
                with _named("picture"):
                    parts["video"] = self._picture(files["picture"], inputs, stack)
            for name, path in sources.items():
                with _named(name):
                    parts[name] = self._prepare(name, path, stack)
            yield Question(parts, start, end, set(files) != {"picture"})

    def _check(self, files: dict[str, Path], start: float, end: float | None) -> None:
        if not 0 <= start < (math.inf if end is None else end):
            raise Refused(422, f"start must be before end, in seconds from 0; got {start}, {end}")
        if "picture" in files and "video" in files:
            raise Refused(422, "give a picture or a video, not both")
        if "picture" in files and (start or end is not None):
            raise Refused(422, "start and end cut a video or a sound; a picture has no time")
        for name, modality in (("picture", "video"), ("audio", "audio")):
            if name in files and modality not in self.model.modalities:
                raise Refused(422, f"the model does not embed {modality}, so it takes no {name}")
        if "video" in files and not {"video", "audio"} & set(self.model.modalities):
            raise Refused(422, "the model embeds neither video nor audio, so it takes no video")

    def _picture(self, path: Path, inputs: Inputs, stack: contextlib.ExitStack) -> Any:
        """Read a picture, which counts as a film of one second."""
        film = self.decoder.picture(path), 1.0
        if self._maker is None:
            return film
        items, _ = inputs.items({"video": film})  # writes a film
        return self._prepare("video", items[0].parts["video"], stack)  # type: ignore[arg-type]

    def _prepare(self, name: str, path: Path, stack: contextlib.ExitStack) -> Any:
        """Compute the features of a file, before the lock of the model is taken."""
        if self._maker is None:
            return self._array(name, path)
        if name == "video" and self._maker.reads_frames:
            raise Refused(
                422,
                "the model was trained from frames of films, which are not read from uploads; ask"
                " in words or by a sound, or search by fusion search",
            )
        with self._loading:
            _ = self._maker.longest  # loads the networks that make features, once
        stack.enter_context(self._maker.reading(path, self.decoder))
        return path

    def _array(self, name: str, path: Path) -> tuple[NDArray[Any], float]:
        """Read pictures or sound, with their rate, for a model that reads films by itself."""
        if name == "audio":
            return self.decoder.sound(path), float(RATE)
        rate = float(getattr(self.model, "frames_per_second", 2.0))
        pieces = self.decoder.pieces(path, {"2d": Sampling(rate, SIDE)}, audio=False)
        frames = [piece.data for piece in pieces]
        if not frames:
            raise Refused(422, "it has no picture")
        return np.concatenate(frames), rate


@contextlib.contextmanager
def _named(part: str) -> Iterator[None]:
    """Name the part of the question that is refused."""
    try:
        yield
    except Refused as error:
        raise Refused(error.status, f"{part}: {error.error}") from None
    except ValueError as error:  # of features that are not known
        raise Refused(422, f"{part}: {error}") from None


def encode_media(model: Any, question: Question) -> tuple[NDArray[np.float32], list[str]]:
    """Embed a question: (E,), and notes on it, one line each."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        vector = model.encode(question.parts, start=question.start, end=question.end)
    notes = [str(warning.message).removeprefix("the input: ") for warning in caught]
    if question.is_timed:
        return vector.numpy(), list(dict.fromkeys(note for note in notes if "longer than" in note))
    return vector.numpy(), []
