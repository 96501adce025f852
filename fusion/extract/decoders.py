"""The processes that decode: started, given work, watched and replaced."""

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
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast

from fusion.extract.decoding import Piece
from fusion.extract.sampling import Sampling
from fusion.extract.worker import read_message

COMMAND = (sys.executable, "-P", "-m", "fusion.extract.worker")
_LOOK = 0.5  # seconds between two looks at the clock
_START = 120.0  # seconds that a process may take to start; a disk in the network is slow
_AHEAD = 8  # messages of each process that may wait
_SLOWEST = 10  # times the duration of a film that decoding it may take


@dataclasses.dataclass(frozen=True)
class Task:
    """A file to decode.

    Attributes:
        name: of the video.
        path: of the file.
    """

    name: str
    path: Path


@dataclasses.dataclass(frozen=True)
class End:
    """A file has been decoded.

    Attributes:
        seconds: that it lasts.
        problems: what is wrong with it, see :class:`.decoding.Film`.
        size: bytes of the file.
        mtime: when it was changed, in seconds since 1970.
    """

    seconds: float
    problems: tuple[str, ...]
    size: int
    mtime: int


@dataclasses.dataclass(frozen=True)
class Failed:
    """A file could not be decoded; what came before this counts for nothing.

    Attributes:
        problem: one line.
    """

    problem: str


class _Process:
    """One process, the file it is at, and how long it has kept us waiting."""

    def __init__(self, inbox: queue.Queue[tuple[_Process, Any]]) -> None:
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

    def _read(self, inbox: queue.Queue[tuple[_Process, Any]]) -> None:
        message: Any = ()
        while message is not None and not self._stopped:
            try:
                message = read_message(cast(io.BufferedReader, self._process.stdout))
            except (EOFError, OSError, ValueError):
                message = None  # it breaks off, which is an end too
            while not self._stopped:
                try:
                    inbox.put((self, message), timeout=_LOOK)
                    break
                except queue.Full:
                    continue  # until there is room, or nobody listens any more

    def begin(self, task: Task, samplings: Mapping[str, Sampling], audio: bool) -> None:
        """Give it a file."""
        self.task, self.silent, self.waited, self.seconds = task, 0.0, 0.0, 0.0
        content = {
            "path": os.fspath(task.path),
            "samplings": {f: dataclasses.asdict(s) for f, s in samplings.items()},
            "audio": audio,
        }
        pipe = cast(IO[bytes], self._process.stdin)
        with contextlib.suppress(OSError):  # it has died, which its thread will tell
            pipe.write(json.dumps(content).encode() + b"\n")
            pipe.flush()

    def wait(self, seconds: float, limit: float) -> str | None:
        """Add to the time it kept us waiting; say what is wrong if that is too long."""
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
        """End it, if it has not ended; return its exit code."""
        self._stopped = True
        self._process.kill()
        code = self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # what was still to be written
                cast(IO[bytes], pipe).close()
        return code


class Decoders:
    """Decode files in processes of their own, several at a time.

    A file whose process crashes, or keeps us waiting for too long, is given up; the process is
    replaced. Only time spent waiting counts, not what the caller does with what came.

    Args:
        samplings: which pictures are wanted, by field.
        audio: whether sound is wanted.
        count: processes.
        time_limit: seconds to wait for the next piece of a file; in all, so long and ten times
            the film's own duration.

    Raises:
        ValueError: one of the numbers is not positive.
    """

    def __init__(
        self, samplings: Mapping[str, Sampling], audio: bool, count: int, time_limit: float
    ) -> None:
        if count < 1 or not time_limit > 0:
            raise ValueError(
                f"workers must be at least 1 and the time limit above 0; got {count}, {time_limit}"
            )
        self.samplings, self.audio = dict(samplings), audio
        self.count, self.time_limit = count, time_limit
        self._inbox: queue.Queue[tuple[_Process, Any]] = queue.Queue(_AHEAD * count)
        self._processes: list[_Process] = []

    def decode(
        self, tasks: Sequence[Task]
    ) -> Generator[tuple[Task, Piece | End | Failed], None, None]:
        """Decode files; those of several are mixed, each has an end or has failed.

        Raises:
            ChildProcessError: the processes do not start.
        """
        waiting = iter(tasks)
        try:
            self._processes = [_Process(self._inbox) for _ in range(min(self.count, len(tasks)))]
            while self._processes:
                yield from self._turn(waiting)
        finally:
            for process in self._processes:
                process.stop()
            self._processes = []

    def _turn(self, waiting: Iterator[Task]) -> Iterator[tuple[Task, Piece | End | Failed]]:
        begin = time.monotonic()
        try:
            sender, message = self._inbox.get(timeout=_LOOK)
        except queue.Empty:
            sender, message = None, None
        # Whoever was stopped and goes on (Ctrl-Z) finds much time gone in which nobody worked.
        waited = min(time.monotonic() - begin, 2 * _LOOK)
        for process in list(self._processes):
            if process is sender:
                process.silent = 0.0
            if wrong := process.wait(waited, self.time_limit):
                yield from self._give_up(process, f"hangs ({wrong}); raise --time-limit")
            elif process is sender:
                yield from self._hear(process, message, waiting)

    def _hear(
        self, process: _Process, message: Any, waiting: Iterator[Task]
    ) -> Iterator[tuple[Task, Piece | End | Failed]]:
        if message is None:
            yield from self._give_up(process, "")
            return
        values, data = message
        task = process.task
        if values["kind"] == "piece" and task:
            process.seconds = values["seconds"]
            yield task, Piece(values["field"], data, process.seconds)
            return
        process.ready = True
        if values["kind"] == "end" and task:
            problems = tuple(values["problems"])
            yield task, End(values["seconds"], problems, values["size"], values["mtime"])
        elif values["kind"] == "failed" and task:
            yield task, Failed(values["problem"])
        self._next(process, waiting)

    def _next(self, process: _Process, waiting: Iterable[Task]) -> None:
        task = next(iter(waiting), None)
        if task is None:
            self._processes.remove(process)
            process.stop()
        else:
            process.begin(task, self.samplings, self.audio)

    def _give_up(
        self, process: _Process, wrong: str
    ) -> Iterator[tuple[Task, Piece | End | Failed]]:
        """End a process that is of no use any more, and begin another one."""
        code, task = process.stop(), process.task
        self._processes.remove(process)
        if not process.ready:
            raise ChildProcessError(
                "the process that decodes does not start; see why with:"
                f" {' '.join(COMMAND)} < /dev/null"
            )
        self._processes.append(_Process(self._inbox))
        if task:
            wrong = wrong or f"ends the program that decodes it ({_exit(code)}); convert it to mp4"
            yield task, Failed(f"{task.path}: {wrong}")


def _exit(code: int) -> str:
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"exit code {code}"
