"""The program that decodes an upload: it has limits, reads one file, and ends.

    python -m fusion.serve.decoder

It reads one task from its standard input, a line of JSON: ``path``, ``do`` (``pieces``, ``frames``,
``sound`` or ``picture``), the arguments of that, and ``limits``. It writes messages as
:mod:`fusion.extract.worker` does to its standard output: "ready"; then any number of "piece", and
one "end" or "failed", which has a status of HTTP. It imports no torch and writes no file.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion.data.media.decode import MediaError, open_media
from fusion.data.media.film import Film, read_audio, read_frames
from fusion.data.media.pictures import Sampling
from fusion.data.media.sound import Hearing
from fusion.extract.worker import write_message

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "AVIF")  # of pictures; no other is tried
LARGEST = 1024  # pixels of the longer side of a picture; larger ones are scaled down
CORES = 2  # FFmpeg starts a thread for each core, and each needs memory

Pieces = Iterator[tuple[str, NDArray[Any], float]]  # field, data, seconds so far


class Unfit(Exception):
    """A file that cannot be used: the status of HTTP, and one line without its path."""

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(problem)
        self.status, self.problem = status, problem


def main() -> None:
    """Do one task."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get between the messages
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-CORES:])
    with contextlib.suppress(OSError):
        os.nice(5)  # questions in words come first
    write_message(output, {"kind": "ready"})
    if not (line := sys.stdin.readline()):
        return
    task = json.loads(line)
    _limit(task["limits"])
    path = Path(task["path"])
    try:
        for field, data, seconds in _do(path, task):
            write_message(output, {"kind": "piece", "field": field, "seconds": seconds}, data)
        write_message(output, {"kind": "end"})
    except BrokenPipeError:
        os._exit(0)
    except Unfit as error:
        _fail(output, error.status, error.problem)
    except MediaError as error:
        _fail(output, 422, str(error).removeprefix(f"{path}: "))
    except MemoryError:
        _fail(output, 413, "needs too much memory; scale it down")
    except Exception as error:  # whatever a library raises, the file is at fault
        words = " ".join(f"{type(error).__name__}: {error}".split())
        _fail(output, 422, f"cannot be read ({words.replace(str(path), 'the file')})")


def _fail(output: Any, status: int, problem: str) -> None:
    write_message(output, {"kind": "failed", "status": status, "problem": problem[:500]})


def _limit(limits: dict[str, Any]) -> None:
    """Limit memory and time; forbid writing files and core dumps."""
    with contextlib.suppress(ImportError):  # Windows
        import resource

        for name, most in (
            (resource.RLIMIT_AS, limits["memory"]),
            (resource.RLIMIT_CPU, limits["cpu"]),
            (resource.RLIMIT_FSIZE, 0),
            (resource.RLIMIT_CORE, 0),
        ):
            with contextlib.suppress(OSError, ValueError):  # a lower limit is set already
                resource.setrlimit(name, (most, most))


def _do(path: Path, task: dict[str, Any]) -> Pieces:
    limits = task["limits"]
    if not path.stat().st_size:
        raise Unfit(422, "the file is empty")
    if task["do"] == "picture":
        yield "picture", _picture(path, limits["pixels"]), 0.0
        return
    _check_media(path, limits)
    if task["do"] == "pieces":
        yield from _pieces(path, task, limits["seconds"])
        return
    end = limits["seconds"] + 1.0  # a second more shows that the file is too long
    if task["do"] == "frames":
        fps, height, width = task["arguments"]
        data: NDArray[Any] = read_frames(path, fps, height, width, end=end)
        seconds = len(data) / fps
    else:
        data = read_audio(path, end=end)
        seconds = len(data) / 16_000
    _check_length(seconds, limits["seconds"])
    yield task["do"], data, seconds


def _check_media(path: Path, limits: dict[str, Any]) -> None:
    """Refuse what FFmpeg does not open, and pictures that are too large to decode."""
    try:
        with open_media(path) as container:
            for stream in container.streams.video:
                if stream.codec_context and stream.width * stream.height > limits["pixels"]:
                    raise Unfit(413, _too_large(stream.width, stream.height, limits["pixels"]))
            if not (container.streams.video or container.streams.audio):
                raise Unfit(422, "it has neither picture nor sound")
    except MediaError as error:
        raise Unfit(415, str(error).removeprefix(f"{path}: ")) from None


def _pieces(path: Path, task: dict[str, Any], most: float) -> Pieces:
    samplings = {
        field: Hearing(**given) if "rate" in given else Sampling(**given)
        for field, given in task["samplings"].items()
    }
    for piece in Film(path, samplings, task["audio"]).pieces():
        _check_length(piece.seconds, most)
        yield piece.field, piece.data, piece.seconds


def _check_length(seconds: float, most: float) -> None:
    if seconds > most + 0.5:  # a sound may be a little longer than its picture
        raise Unfit(413, f"it is longer than {most:g} s; cut out the part to search for")


def _picture(path: Path, pixels: int) -> NDArray[np.uint8]:
    """Read a picture, upright: (1, H, W, 3)."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = None  # the size is checked here, before anything is decoded
    try:
        opened = Image.open(path, formats=FORMATS)
    except UnidentifiedImageError:
        known = ", ".join(FORMATS)
        raise Unfit(415, f"it is no picture that is read ({known}); convert it to PNG") from None
    with opened as picture:
        if picture.width * picture.height > pixels:
            raise Unfit(413, _too_large(*picture.size, pixels))
        try:
            upright = ImageOps.exif_transpose(picture).convert("RGB")
        except (OSError, SyntaxError, ValueError) as error:
            raise Unfit(422, f"the picture is damaged ({error}); save it again") from None
    upright.thumbnail((LARGEST, LARGEST))
    return np.asarray(upright)[None]


def _too_large(width: int, height: int, pixels: int) -> str:
    most = round(pixels / 1e6)
    return f"its picture has {width} x {height} pixels, more than {most} million; scale it down"


if __name__ == "__main__":
    main()
