"""Start the programs that decode, give them files, watch them, replace them."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sized
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from fusion.data.media.film import Piece
from fusion.data.media.pictures import Sampling
from fusion.data.media.sound import Hearing
from fusion.data.media.streams import BEST, Tracks
from fusion.extract.worker import read_message

COMMAND = (sys.executable, "-P", "-m", "fusion.extract.worker")
_LOOK = 0.5  # seconds between two looks at the clock
_START = 120.0  # seconds that a worker may take to start; network disks are slow
_AHEAD = 8  # messages of each worker that may wait
_SLOWEST = 10  # decoding may take so many times the duration of the film


class Task(NamedTuple):
    """A file to decode: the name of the video, and the path of its file."""

    name: str
    path: Path


class End(NamedTuple):
    """A file was decoded."""

    seconds: float
    problems: tuple[str, ...]  # see :class:`.film.Film`
    size: int  # bytes
    mtime: int  # of its last change, in seconds since 1970
    notes: tuple[str, ...] = ()


class Failed(NamedTuple):
    """A file could not be decoded, and its pieces are void; ``problem`` is one line."""

    problem: str


Event = Piece | End | Failed


class _Worker:
    """A program that decodes, its file, and how long we have waited for it."""

    def __init__(self, inbox: queue.Queue[tuple[_Worker, Any]]) -> None:
        folder = str(Path(__file__).parents[2])
        paths = [folder, *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if os.environ.get("FUSION_DEBUG") else subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        self.task: Task | None = None
        self.ready = self._stopped = False
        self.silent = self.waited = self.seconds = 0.0
        threading.Thread(target=self._read, args=(inbox,), daemon=True).start()

    def _read(self, inbox: queue.Queue[tuple[_Worker, Any]]) -> None:
        """Put messages into the inbox; None: the program has ended."""
        message: Any = ()
        while message is not None and not self._stopped:
            try:
                message = read_message(cast(io.BufferedReader, self._process.stdout))
            except (EOFError, OSError, ValueError):
                message = None
            while not self._stopped:
                with contextlib.suppress(queue.Full):  # try again until there is room
                    inbox.put((self, message), timeout=_LOOK)
                    break

    def begin(
        self,
        task: Task,
        samplings: Mapping[str, Sampling | Hearing],
        audio: bool,
        tracks: Tracks,
    ) -> None:
        """Give it a file."""
        self.task, self.silent, self.waited, self.seconds = task, 0.0, 0.0, 0.0
        content = {
            "path": os.fspath(task.path),
            "samplings": {f: dataclasses.asdict(s) for f, s in samplings.items()},
            "audio": audio,
            "tracks": tracks.as_settings(),
        }
        pipe = cast(IO[bytes], self._process.stdin)
        with contextlib.suppress(OSError):  # it has ended, which its thread will report
            pipe.write(json.dumps(content).encode() + b"\n")
            pipe.flush()

    def wait(self, seconds: float, limit: float) -> str | None:
        """Count the time that we have waited; say what is wrong if that is too long."""
        self.silent += seconds
        self.waited += seconds
        if not self.ready:
            return "did not start" if self.silent > _START else None
        if self.task and self.silent > limit:
            return f"nothing came for {limit:g} s after {self.seconds:.1f} s of it"
        if self.task and self.waited > limit + _SLOWEST * self.seconds:
            return f"{self.seconds:.1f} s of it took {self.waited:.0f} s"
        return None

    def stop(self) -> int:
        """End the program, if it has not ended; return its exit code."""
        self._stopped = True
        self._process.kill()
        code = self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # from bytes that were not written yet
                cast(IO[bytes], pipe).close()
        return code


class DecoderPool:
    """Decode files in several programs at a time.

    If a program crashes or hangs, its file fails and the program is replaced. Only time spent
    waiting for it counts, not the time that the caller takes.

    Args:
        samplings: which pictures and which sound are wanted, by field.
        audio: whether sound is wanted.
        count: number of programs.
        time_limit: seconds to wait for the next piece of a file; for the whole file, as long plus
            ten times its duration.
        tracks: which of several tracks to take.
    """

    def __init__(
        self,
        samplings: Mapping[str, Sampling | Hearing],
        audio: bool,
        count: int,
        time_limit: float,
        tracks: Tracks = BEST,
    ) -> None:
        if count < 1 or not time_limit > 0:
            raise ValueError(
                f"workers must be at least 1 and the time limit above 0; got {count}, {time_limit}"
            )
        self.samplings, self.audio, self.tracks = dict(samplings), audio, tracks
        self.count, self.time_limit = count, time_limit
        self._inbox: queue.Queue[tuple[_Worker, Any]] = queue.Queue(_AHEAD * count)
        self._workers: list[_Worker] = []

    def decode(self, tasks: Iterable[Task]) -> Generator[tuple[Task, Event], None, None]:
        """Decode files; pieces of several files are mixed; each file ends with End or Failed.

        Of an iterable without a length, a task is taken when a program is free, and after the
        caller has taken the end of the file before. ChildProcessError: the programs do not start.
        """
        waiting = iter(tasks)
        try:
            count = min(self.count, len(tasks)) if isinstance(tasks, Sized) else self.count
            self._workers = [_Worker(self._inbox) for _ in range(count)]
            while self._workers:
                yield from self._turn(waiting)
        finally:
            for worker in self._workers:
                worker.stop()
            self._workers = []

    def _turn(self, waiting: Iterator[Task]) -> Iterator[tuple[Task, Event]]:
        begin = time.monotonic()
        try:
            sender, message = self._inbox.get(timeout=_LOOK)
        except queue.Empty:
            sender, message = None, None
        # After a stop with Ctrl-Z much time has passed in which no worker could work.
        waited = min(time.monotonic() - begin, 2 * _LOOK)
        for worker in list(self._workers):
            if worker is sender:
                worker.silent = 0.0
            if wrong := worker.wait(waited, self.time_limit):
                yield from self._give_up(worker, f"hangs ({wrong}); raise --time-limit")
            elif worker is sender:
                yield from self._receive(worker, message, waiting)

    def _receive(
        self, worker: _Worker, message: Any, waiting: Iterator[Task]
    ) -> Iterator[tuple[Task, Event]]:
        if message is None:
            yield from self._give_up(worker, "")
            return
        values, data = message
        task = worker.task
        if values["kind"] == "piece" and task:
            worker.seconds = values["seconds"]
            yield task, Piece(values["field"], data, worker.seconds)
            return
        worker.ready = True
        if values["kind"] == "end" and task:
            problems = tuple(values["problems"])
            state = (values["size"], values["mtime"], tuple(values["notes"]))
            yield task, End(values["seconds"], problems, *state)
        elif values["kind"] == "failed" and task:
            yield task, Failed(values["problem"])
        following = next(waiting, None)
        if following is None:
            self._workers.remove(worker)
            worker.stop()
        else:
            worker.begin(following, self.samplings, self.audio, self.tracks)

    def _give_up(self, worker: _Worker, wrong: str) -> Iterator[tuple[Task, Event]]:
        """End a worker and start another one; its file has failed."""
        code, task = worker.stop(), worker.task
        self._workers.remove(worker)
        if not worker.ready:
            raise ChildProcessError(
                "the program that decodes does not start; to see why, run:"
                f" {' '.join(COMMAND)} < /dev/null"
            )
        self._workers.append(_Worker(self._inbox))
        if task:
            names = {-number: number.name for number in signal.Signals}
            how = names.get(code, f"exit code {code}")
            wrong = wrong or f"ends the program that decodes it ({how}); convert it to mp4"
            yield task, Failed(f"{task.path}: {wrong}")
