"""Decode uploads in programs with limits; see :mod:`fusion.serve.decoder`.

Shapes: N pictures, H x W pixels, S samples.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from fusion.data.media.film import Piece
from fusion.data.media.pictures import Sampling
from fusion.data.media.sound import Hearing
from fusion.serve.schemas import Refused

COMMAND = (sys.executable, "-P", "-m", "fusion.serve.decoder")
_TYPES = ("|u1", "<f4")  # of arrays
_LONGEST = 65_536  # bytes of the line of a message
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "FUSION_DEBUG")


@dataclasses.dataclass(frozen=True)
class Limits:
    """What an upload may cost.

    Attributes:
        seconds: of sound or film in a file.
        pixels: of a picture.
        memory: bytes of address space of the program that decodes.
        cpu: seconds of the processor that it may take.
        wall: seconds that it may take.
        answer: bytes of what it may send.
    """

    seconds: float = 120.0
    pixels: int = 50_000_000
    memory: int = 2 * 2**30
    cpu: int = 60
    wall: float = 90.0
    answer: int = 2**30


class LimitedDecoder:
    """Reads files of strangers, each in a program of its own; a :class:`.features.Reading`.

    A program that has started waits for the next file. All methods raise :class:`.Refused`: 415 it
    is of another type, 422 it is damaged, 413 it is too large or takes too long.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._lock = threading.Lock()
        self._spare: subprocess.Popen[bytes] | None = None
        self._busy: set[subprocess.Popen[bytes]] = set()
        self._closed = False

    def pieces(
        self, path: Path, samplings: Mapping[str, Sampling | Hearing], audio: bool
    ) -> Iterator[Piece]:
        """Do what :meth:`.Film.pieces` does."""
        wanted = {field: dataclasses.asdict(sampling) for field, sampling in samplings.items()}
        task = {"do": "pieces", "samplings": wanted, "audio": audio}
        for values, data in self._ask(path, task):
            yield Piece(values["field"], data, float(values["seconds"]))

    def frames(self, path: Path, fps: float, height: int, width: int) -> NDArray[np.uint8]:
        """Do what :func:`.read_frames` does with a whole file: (N, H, W, 3)."""
        return self._one(path, {"do": "frames", "arguments": [fps, height, width]})

    def sound(self, path: Path) -> NDArray[np.float32]:
        """Do what :func:`.read_audio` does with a whole file: (S,) at 16 kHz."""
        return self._one(path, {"do": "sound"})

    def picture(self, path: Path) -> NDArray[np.uint8]:
        """Read a picture file: (1, H, W, 3) RGB, upright."""
        return self._one(path, {"do": "picture"})

    def warm(self) -> None:
        """Start the program that waits for the next file."""
        with self._lock:
            if self._spare is None and not self._closed:
                self._spare = _start()

    def close(self) -> None:
        """End all programs."""
        with self._lock:
            self._closed = True
            for process in self._busy:  # the thread that reads it closes its pipes
                process.kill()
            if self._spare:
                _end(self._spare)

    def _one(self, path: Path, task: dict[str, Any]) -> NDArray[Any]:
        parts = [data for _, data in self._ask(path, task)]
        if not parts:
            raise Refused(422, "nothing in the file can be decoded")
        return parts[0]

    def _take(self) -> subprocess.Popen[bytes]:
        """Take the waiting program, or start one, and start the next."""
        with self._lock:
            if self._closed:
                raise Refused(503, "the server stops")
            process = self._spare
            if process is None or process.poll() is not None:  # somebody ended it
                process = _start()
            self._spare = _start()
            self._busy.add(process)
            return process

    def _ask(
        self, path: Path, task: dict[str, Any]
    ) -> Iterator[tuple[dict[str, Any], NDArray[Any]]]:
        limits = self.limits
        sent = {f: getattr(limits, f) for f in ("seconds", "pixels", "memory", "cpu")}
        line = json.dumps(task | {"path": os.fspath(path.absolute()), "limits": sent})
        process = self._take()
        late = threading.Event()

        def give_up() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(limits.wall, give_up)
        timer.start()
        try:
            stdin, stdout = cast(IO[bytes], process.stdin), cast(IO[bytes], process.stdout)
            with contextlib.suppress(OSError):  # it has ended, as the next read shows
                stdin.write(line.encode() + b"\n")
                stdin.flush()
            yield from self._receive(stdout)
        except EOFError:
            raise self._why(process, late.is_set()) from None
        finally:
            timer.cancel()
            _end(process)
            with self._lock:
                self._busy.discard(process)

    def _receive(self, source: IO[bytes]) -> Iterator[tuple[dict[str, Any], NDArray[Any]]]:
        """Yield the arrays of a file. The program is not trusted: a file may have taken it over."""
        left = self.limits.answer
        while True:
            values = _header(source)
            if values["kind"] == "end":
                return
            if values["kind"] == "failed":
                status = values["status"] if values["status"] in (413, 415, 422) else 422
                raise Refused(status, str(values["problem"]))
            if values["kind"] != "piece":
                continue
            shape = [int(number) for number in values["shape"]]
            if values["dtype"] not in _TYPES or min(shape, default=0) < 0 or len(shape) > 4:
                raise EOFError
            left -= math.prod(shape) * np.dtype(values["dtype"]).itemsize
            if left < 0:
                raise Refused(413, "its pictures need too much memory; give a shorter one")
            data = np.empty(shape, values["dtype"])
            view = data.reshape(-1).view(np.uint8).data
            while view:
                if not (count := source.readinto(view)):  # type: ignore[attr-defined]
                    raise EOFError
                view = view[count:]
            yield values, data

    def _why(self, process: subprocess.Popen[bytes], late: bool) -> Refused:
        """Say why the program ended before it had answered."""
        if self._closed:
            return Refused(503, "the server stops")
        code = process.wait()
        if late or code in (-24, -9):  # SIGXCPU; SIGKILL follows it
            return Refused(
                413, "decoding it takes too long or too much; give a shorter or smaller one"
            )
        return Refused(422, "it ends the program that decodes it; convert it to mp4, wav or png")


def _start() -> subprocess.Popen[bytes]:
    """Start a program, which inherits no secrets of this one's environment."""
    folder = str(Path(__file__).parents[2])
    paths = [folder, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return subprocess.Popen(
        COMMAND,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None if os.environ.get("FUSION_DEBUG") else subprocess.DEVNULL,
        env={
            **environment,
            "PYTHONPATH": os.pathsep.join(paths),
            "MALLOC_ARENA_MAX": "2",  # each thread's arena would count against the memory
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        },
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program, if it has not ended, and close what is connected to it."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):  # from bytes that were not written yet
            cast(IO[bytes], pipe).close()


def _header(source: IO[bytes]) -> dict[str, Any]:
    """Read the line of a message; EOFError: there is none, or it is no message."""
    line = source.readline(_LONGEST)
    try:
        values = json.loads(line)
        if values["kind"] in ("ready", "end"):
            return dict(values)
        needed = {"piece": ("field", "seconds", "shape", "dtype"), "failed": ("status", "problem")}
        return {"kind": values["kind"]} | {key: values[key] for key in needed[values["kind"]]}
    except (ValueError, KeyError, TypeError):
        raise EOFError from None
