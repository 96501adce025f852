"""Extract one process's share of the files: from pieces of films to rows in the store.

Shapes: N pictures, H x W pixels, S samples, R rows, D width.
"""

from __future__ import annotations

import contextlib
import itertools
import signal
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from fusion.data.features.store import FeatureStore
from fusion.data.features.writer import StoreWriter
from fusion.data.media.film import Piece
from fusion.data.media.log_mel import Spectrogram
from fusion.extract.backbone import Backbone
from fusion.extract.decoder_pool import DecoderPool, End, Event, Failed, Task
from fusion.extract.outcomes import CHANGED
from fusion.extract.settings import AUDIO, AnyBackbone, facts_of
from fusion.extract.transformers_models import SoundBackbone
from fusion.training.memory import is_out_of_memory

FLUSH_SECONDS = 300.0  # work that a kill may cost


class FilmRows:
    """Computes the features of one film; keeps its rows and a few seconds of its pictures.

    The windows that are computed together are of one film and always the same ones, so the rows do
    not depend on other films.
    """

    def __init__(self, backbones: Mapping[str, AnyBackbone]) -> None:
        self._tracks: dict[str, Any] = {
            f: _PictureRows(b) if isinstance(b, Backbone) else _SoundRows(b)
            for f, b in backbones.items()
        }
        self._tracks[AUDIO] = Spectrogram()

    def push(self, piece: Piece) -> None:
        """Take a piece of the film."""
        self._tracks[piece.field].push(piece.data)

    def end(self) -> dict[str, Tensor]:
        """Return the rows of each field, (R, D) float16; R is 0 without picture or sound."""
        return {field: track.end() for field, track in self._tracks.items()}


class _PictureRows:
    def __init__(self, backbone: Backbone) -> None:
        self._backbone, self._sampling = backbone, backbone.sampling
        self._frames: deque[NDArray[Any]] = deque()  # (H, W, 3) each, from the next window on
        self._windows: list[Tensor] = []
        self._rows = [torch.zeros(0, backbone.dim, dtype=torch.float16)]

    def push(self, pictures: NDArray[Any]) -> None:
        self._frames.extend(pictures)
        while len(self._frames) >= self._sampling.frames:
            self._cut()

    def end(self) -> Tensor:
        while self._frames:
            self._cut()
        self._compute()
        return torch.cat(self._rows)

    def _cut(self) -> None:
        """Cut a window off the frames; black pictures follow the last frame."""
        shown = list(itertools.islice(self._frames, self._sampling.frames))
        black = [np.zeros_like(shown[0])] * (self._sampling.frames - len(shown))
        self._windows.append(torch.from_numpy(np.stack(shown + black)))
        for _ in range(min(self._sampling.stride, len(self._frames))):
            self._frames.popleft()
        if len(self._windows) >= self._backbone.batch_of(*shown[0].shape[:2]):
            self._compute()

    def _compute(self) -> None:
        if self._windows:
            self._rows.append(self._backbone.compute(torch.stack(self._windows)).half())
            self._windows = []


class _SoundRows:
    def __init__(self, backbone: SoundBackbone) -> None:
        self._backbone, hearing = backbone, backbone.sampling
        self._length, self._step = (s * hearing.rate for s in (hearing.seconds, hearing.stride))
        self._samples = np.zeros(0, np.float32)  # from the next stretch on
        self._rows = [torch.zeros(0, backbone.dim, dtype=torch.float16)]

    def push(self, samples: NDArray[Any]) -> None:
        self._samples = np.concatenate([self._samples, samples])
        while len(self._samples) >= self._length:
            self._cut()

    def end(self) -> Tensor:
        while len(self._samples):
            self._cut()
        return torch.cat(self._rows)

    def _cut(self) -> None:
        stretch, self._samples = self._samples[: self._length], self._samples[self._step :]
        self._rows.append(self._backbone.compute(stretch).half())


class Share:
    """The files that one process extracts; ``films`` are those of all processes, by name.

    ``failures`` says by name what is wrong with files that added nothing to the store.
    """

    def __init__(
        self,
        films: Mapping[str, Path],
        writer: StoreWriter,
        decoders: DecoderPool,
        backbones: Mapping[str, AnyBackbone],
    ) -> None:
        self.films, self.writer, self.decoders = films, writer, decoders
        self.failures: dict[str, str] = {}
        self._facts = facts_of(backbones)
        # Of the films that are being decoded
        self._rows: dict[str, FilmRows] = defaultdict(lambda: FilmRows(backbones))
        self._seconds: dict[str, float] = {}
        self._flushed = time.monotonic()

    def extract(self, names: Sequence[str], quiet: bool) -> None:
        """Extract the features of the named files that are not in the store; ``quiet``: no bar."""
        tasks = list(self._tasks(names))
        done = len(names) - len(tasks)
        if done and not quiet:
            say(f"{done} of {len(names)} files are done already")
        often = 0.5 if sys.stderr.isatty() else 60  # seconds; a log file keeps every line
        bar = tqdm(total=len(names), initial=done, unit="file", disable=quiet, mininterval=often)
        with (
            _stopping(self.writer.flush, lambda: f"{bar.n} of {len(names)}"),
            bar,
            contextlib.closing(self.decoders.decode(tasks)) as events,
        ):
            self._take(events, bar, often)

    def _take(self, events: Iterable[tuple[Task, Event]], bar: Any, often: float) -> None:
        seconds, shown = 0.0, time.monotonic()
        for task, event in events:
            if isinstance(event, Piece):
                seconds += event.seconds - self._seconds.get(task.name, 0.0)
                self._seconds[task.name] = event.seconds
                self._guard(task, self._rows[task.name].push, event)
            else:
                if problem := self._end(task, event):
                    self.failures[task.name] = problem
                    bar.write(f"{task.name}: {problem}", file=sys.stderr)
                bar.update()
            bar.set_postfix_str(f"{seconds / 60:.1f} min of film", refresh=False)
            if time.monotonic() - shown > often:
                bar.refresh()
                shown = time.monotonic()

    def _tasks(self, names: Sequence[str]) -> Iterator[Task]:
        """Find the files that are to be decoded."""
        store = FeatureStore(self.writer.folder)
        for name in names:
            path = self.films[name]
            try:
                name.encode()
                state = path.stat()
            except UnicodeEncodeError:
                self.failures[name] = "its name is not UTF-8; rename it"
                continue
            except OSError as error:
                self.failures[name] = f"cannot be read ({error.strerror}); check the disk"
                continue
            if name not in store:
                yield Task(name, path)
                continue
            facts = store.facts(name)
            if (facts.get("size"), facts.get("mtime")) != (state.st_size, int(state.st_mtime)):
                self.failures[name] = (
                    f"{CHANGED}the store keeps the features of the earlier file of this name;"
                    " extract the new one into another store"
                )

    def _guard(self, task: Task, action: Callable[..., Any], *arguments: Any) -> Any:
        """Call an action for a film, unless memory ran out for it before."""
        try:
            return None if task.name in self.failures else action(*arguments)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self.failures[task.name] = (
                "out of memory: its pictures are too large; scale the film down"
            )
            return None

    def _end(self, task: Task, event: End | Failed) -> str | None:
        """Add a film to the store; return why that was not possible."""
        self._seconds.pop(task.name, None)
        rows = self._rows[task.name]
        del self._rows[task.name]
        if isinstance(event, Failed):
            return event.problem.removeprefix(f"{task.path}: ")
        features = self._guard(task, rows.end)
        if features is None:
            return self.failures[task.name]
        features = {f: rows for f, rows in features.items() if f in self.writer.fields}
        facts = {"duration": round(event.seconds, 3), "size": event.size, "mtime": event.mtime}
        facts |= {"problems": list(event.problems), "notes": list(event.notes)} | self._facts
        try:
            self.writer.add(task.name, features, facts)
        except ValueError as error:  # not finite, or too large for float16
            return str(error).removeprefix(f"{task.name}: ")
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.writer.flush()
            self._flushed = time.monotonic()
        return None


@contextlib.contextmanager
def _stopping(save: Callable[[], None], progress: Callable[[], str]) -> Iterator[None]:
    """On SIGINT (Ctrl-C) and SIGTERM, save what is done, print the progress, then end."""
    received: list[int] = []

    def stop(number: int, frame: Any) -> None:
        received.append(number)
        raise KeyboardInterrupt

    # Only the main thread may set signal handlers
    mine = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM) if mine else ()
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    except KeyboardInterrupt:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        save()
        say(f"stopped: {progress()} files are done; the same command goes on from there")
        if signal.SIGTERM in received:
            sys.exit(128 + signal.SIGTERM)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def say(text: str) -> None:
    """Print a line for the user to stderr."""
    print(text, file=sys.stderr, flush=True)
