"""Questions about a picture, or a moment of a film, for a model of question answering.

Shapes: H x W pixels.
"""

from __future__ import annotations

import base64
import io
import threading
import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fusion.data.media.encode import encode_jpeg
from fusion.report.answers import shade
from fusion.search.films.thumbnails import make_thumbnails
from fusion.serve.decoding import LimitedDecoder
from fusion.serve.schemas import Refused

TOP = 5  # answers
SIDE = 240  # pixels of the shorter side of what is shown, at least, unless the longer one has
LARGEST = 1024  # as many


class Answering(Protocol):
    """Answers questions, such as :class:`fusion.tasks.question_answering.ask.Asker`."""

    def answer(self, picture: NDArray[np.uint8], question: str, number: int = 5) -> Any:
        """Answer a question about an (H, W, 3) RGB picture; ValueError: it cannot."""


class Asking:
    """What the routes call, in threads.

    Args:
        asker: answers the questions.
        decoder: reads uploads.
    """

    def __init__(self, asker: Answering, decoder: LimitedDecoder) -> None:
        self.asker, self.decoder = asker, decoder
        self._lock = threading.Lock()  # the model answers one question at a time

    def about_upload(self, question: str, file: Path) -> dict[str, Any]:
        """Answer a question about a picture that a stranger sent."""
        begin = time.perf_counter()
        try:
            picture = self.decoder.picture(file)[0]
        except Refused as error:
            raise Refused(error.status, f"picture: {error.error}") from None
        return self._answer(question, picture, begin)

    def about_moment(self, question: str, film: Path, second: float) -> dict[str, Any]:
        """Answer a question about a film of the index at a second of it."""
        from PIL import Image

        begin = time.perf_counter()
        if not film.is_file():
            raise Refused(404, f"{film.name} cannot be read now; it may have been moved")
        content = make_thumbnails(film, [second])[0]
        if content is None:
            raise Refused(422, f"{film.name} has no picture at {second:g} s; choose another second")
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as opened:
            picture = np.asarray(opened.convert("RGB"))
        return self._answer(question, picture, begin)

    def _answer(self, question: str, picture: NDArray[np.uint8], begin: float) -> dict[str, Any]:
        if not question.strip():
            raise Refused(400, "the question is empty; ask one, such as: what is it?")
        with self._lock:
            try:
                reply = self.asker.answer(picture, question, TOP)
            except ValueError as error:
                raise Refused(400, str(error)) from None
            except (RuntimeError, MemoryError) as error:  # of the device
                raise Refused(503, f"the model of answers cannot be used ({error})") from None
        times = -(-SIDE // min(picture.shape[:2]))
        times = max(1, min(times, LARGEST // max(picture.shape[:2])))
        large = picture.repeat(times, axis=0).repeat(times, axis=1)
        looked = None if reply.look is None else _jpeg(shade(large, reply.look))
        return {
            "answers": [{"answer": a, "probability": p} for a, p in reply.best],
            "picture": _jpeg(large),
            "attention": looked,
            "seconds": round(time.perf_counter() - begin, 6),
        }


def _jpeg(picture: NDArray[np.uint8]) -> str:
    """Write an (H, W, 3) picture as base64 of a JPEG file, whose sides are even."""
    odd = [(0, side % 2) for side in picture.shape[:2]]
    return base64.b64encode(encode_jpeg(np.pad(picture, [*odd, (0, 0)], "edge"))).decode()
