"""The whole job: files in, a feature store and a report out."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from fusion.data.captions import CaptionError
from fusion.data.store import FeatureStore
from fusion.data.store_writer import StoreWriter
from fusion.data.subtitles import find_captions
from fusion.extract.backbone import Backbone
from fusion.extract.captions import write_captions
from fusion.extract.decoders import Decoders, End, Failed, Task
from fusion.extract.decoding import Piece
from fusion.extract.report import CHANGED, Report, forget, make_report, note
from fusion.extract.rows import FilmRows
from fusion.extract.settings import MEANINGLESS, Features, claim, describe, facts_of, fields_of
from fusion.extract.videos import find_videos, share
from fusion.training.memory import is_out_of_memory

FLUSH_SECONDS = 300.0  # of work that a kill may cost
_MOST_WORKERS = 8


def extract(
    videos: Sequence[str | Path],
    out: str | Path,
    features: Features | None = None,
    *,
    captions: str | Path | None = None,
    root: str | Path | None = None,
    workers: int | None = None,
    time_limit: float = 60.0,
) -> Report:
    """Extract features of media files into a feature store.

    What is done already is not done again, so a run that was stopped in any way goes on when it is
    started again. Of several processes (``RANK`` and ``WORLD_SIZE``) each takes its share of the
    files; they need not be on one machine, only share the folder.

    Args:
        videos: files and folders, see :func:`.videos.find_videos`.
        out: folder of the store.
        features: what to extract; None: the defaults.
        captions: a folder of subtitle files or a caption file, for ``captions.csv``.
        root: what the names of the videos are relative to.
        workers: processes that decode; None: as many as the device keeps busy.
        time_limit: see :class:`.decoders.Decoders`.

    Returns:
        What came out of each file, as far as all processes are done.

    Raises:
        ValueError: a path, a name or a file is wrong, weights are missing, or the store has other
            settings; one line.
        KeyboardInterrupt: the user stopped it, after what was done is written.
    """
    store, features = Path(out).expanduser(), features or Features()
    films = find_videos(videos, root, store)
    if captions is not None:
        find_captions(captions, list(films))  # say now what is wrong with it
    rank, world = (int(os.environ.get(n) or d) for n, d in (("RANK", 0), ("WORLD_SIZE", 1)))
    device = _device()
    backbones = {field: b.to(device) for field, b in features.build().items()}
    count = (_cores() if device.type == "cuda" else 1) if workers is None else workers
    samplings = {field: backbone.sampling for field, backbone in backbones.items()}
    decoders = Decoders(samplings, features.audio, count, time_limit)
    claim(store, describe(backbones, features.audio))
    if "warning" in facts_of(backbones) and rank == 0:
        _say(f"{'!' * 100}\n!!! {MEANINGLESS}\n{'!' * 100}")
    forget(store, rank, world)
    with StoreWriter(store, fields_of(backbones, features.audio), f"rank{rank}") as writer:
        work = Work(films, writer, decoders, backbones)
        work.run(share(films, rank, world), quiet=rank > 0)
    note(store, rank, work.failures)
    report = make_report(store, films, world)
    if report.complete:
        _finish(report, store, captions)
    return report


class Work:
    """What one process does.

    Args:
        films: all files by name.
        writer: of the store.
        decoders: read the files.
        backbones: by field.

    Attributes:
        failures: what is wrong with the files of which nothing, or nothing new, is in the store.
    """

    def __init__(
        self,
        films: Mapping[str, Path],
        writer: StoreWriter,
        decoders: Decoders,
        backbones: Mapping[str, Backbone],
    ) -> None:
        self.films, self.writer, self.decoders, self.backbones = films, writer, decoders, backbones
        self.failures: dict[str, str] = {}
        self._facts = facts_of(backbones)
        self._rows: dict[str, FilmRows] = {}  # of the films that are being decoded
        self._flushed = time.monotonic()

    def run(self, names: Sequence[str], quiet: bool) -> None:
        """Extract the features of some of the files, those that are not in the store yet.

        Args:
            names: of the videos.
            quiet: show no progress.
        """
        tasks = list(self._tasks(names))
        done = len(names) - len(tasks)
        if done and not quiet:
            _say(f"{done} of {len(names)} files are done already")
        often = 0.1 if sys.stderr.isatty() else 60  # seconds; in a log file lines add up
        bar = tqdm(total=len(names), initial=done, unit="file", disable=quiet, mininterval=often)
        with (
            bar,
            _stopping(self.writer.flush, lambda: f"{bar.n} of {len(names)}"),
            contextlib.closing(self.decoders.decode(tasks)) as events,
        ):
            seconds = {task.name: 0.0 for task in tasks}
            for task, event in events:
                if isinstance(event, Piece):
                    self._take(task, event)
                    seconds[task.name] = event.seconds
                    continue
                if problem := self._end(task, event):
                    self.failures[task.name] = problem
                    bar.write(problem, file=sys.stderr)
                bar.set_postfix_str(f"{sum(seconds.values()) / 60:.1f} min of film")
                bar.update()

    def _tasks(self, names: Sequence[str]) -> Iterator[Task]:
        """Find what is to be done."""
        store = FeatureStore(self.writer.folder)
        for name in names:
            path = self.films[name]
            try:
                name.encode()
                state = path.stat()
            except UnicodeEncodeError:
                self.failures[name] = f"{name!r}: no UTF-8; rename the file"
                continue
            except OSError as error:
                self.failures[name] = f"{path}: cannot be read ({error.strerror})"
                continue
            if name not in store:
                yield Task(name, path)
                continue
            facts = store.facts(name)
            if (facts.get("size"), facts.get("mtime")) != (state.st_size, int(state.st_mtime)):
                self.failures[name] = (
                    f"{CHANGED}another file had this name when its features were extracted, which"
                    " are kept; extract it into another store"
                )

    def _take(self, task: Task, piece: Piece) -> None:
        if task.name in self.failures:
            return
        rows = self._rows.setdefault(task.name, FilmRows(self.backbones))
        try:
            rows.push(piece)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self.failures[task.name] = f"{task.path}: no memory for its pictures"

    def _end(self, task: Task, event: End | Failed) -> str | None:
        """Add a film to the store; say why that was not possible."""
        rows = self._rows.pop(task.name, None) or FilmRows(self.backbones)
        if isinstance(event, Failed):
            return event.problem
        if task.name in self.failures:
            return self.failures[task.name]
        try:
            facts = {"duration": round(event.seconds, 3), "size": event.size, "mtime": event.mtime}
            facts |= {"problems": list(event.problems)} | self._facts
            features = {f: r for f, r in rows.end().items() if f in self.writer.fields}
            self.writer.add(task.name, features, facts)
        except ValueError as error:  # not finite, or too large for float16
            return f"{task.path}: {error}"
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.writer.flush()
            self._flushed = time.monotonic()
        return None


@contextlib.contextmanager
def _stopping(save: Callable[[], None], progress: Callable[[], str]) -> Iterator[None]:
    """On Ctrl-C, and on the signal by which machines are taken back, save before the end."""
    received: list[int] = []

    def stop(number: int, frame: Any) -> None:
        received.append(number)
        raise KeyboardInterrupt

    # Only the main thread hears signals.
    mine = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM) if mine else ()
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    except KeyboardInterrupt:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        save()
        _say(f"stopped: {progress()} files are done; the same command goes on from there")
        if signal.SIGTERM in received:
            sys.exit(128 + signal.SIGTERM)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _finish(report: Report, store: Path, captions: str | Path | None) -> None:
    if captions is not None:
        try:
            _say(write_captions(store, captions, FeatureStore(store).videos))
        except CaptionError as error:  # none of the videos that could be read has any
            _say(f"no captions are written: {error}")
    print(report.for_screen(), flush=True)


def _device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK") or 0) % torch.cuda.device_count())


def _cores() -> int:
    """Count the cores that this process may keep busy with decoding."""
    allowed = getattr(os, "sched_getaffinity", None)  # not on every platform
    cores = len(allowed(0)) if allowed else os.cpu_count() or 1
    return max(1, min(_MOST_WORKERS, cores // int(os.environ.get("LOCAL_WORLD_SIZE") or 1)))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
