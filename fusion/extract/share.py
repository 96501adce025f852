"""Extract one process's share of the files into the store: what to do, the bar, what is written."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fusion.data.features.store import FeatureStore
from fusion.data.features.writer import StoreWriter
from fusion.extract.decoder_pool import Task
from fusion.extract.films import Event, Extracted
from fusion.extract.outcomes import CHANGED

FLUSH_SECONDS = 300.0  # work that a kill may cost
Extract = Callable[[Sequence[Task]], Generator[tuple[Task, Event], None, None]]


class Share:
    """The files that one process extracts; ``films`` are those of all processes, by name.

    ``extract_films`` computes them, here or elsewhere: :meth:`.films.Extractor.extract` or
    :meth:`.ray_films.RayExtractor.extract`.
    ``failures`` says by name what is wrong with files that added nothing to the store.
    """

    def __init__(
        self, films: Mapping[str, Path], writer: StoreWriter, extract_films: Extract
    ) -> None:
        self.films, self.writer, self.extract_films = films, writer, extract_films
        self.failures: dict[str, str] = {}
        self._seconds: dict[str, float] = {}  # of films that are being extracted
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
            contextlib.closing(self.extract_films(tasks)) as events,  # after saving: it takes time
            _stopping(self.writer.flush, lambda: f"{bar.n} of {len(names)}"),
            bar,
        ):
            self._take(events, bar, often)

    def _take(self, events: Iterable[tuple[Task, Event]], bar: Any, often: float) -> None:
        seconds, shown = 0.0, time.monotonic()
        for task, event in events:
            if isinstance(event, Extracted):
                self._seconds.pop(task.name, None)
                if problem := self._add(task, event):
                    self.failures[task.name] = problem
                    bar.write(f"{task.name}: {problem}", file=sys.stderr)
                bar.update()
            else:
                seconds += event - self._seconds.get(task.name, 0.0)
                self._seconds[task.name] = event
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

    def _add(self, task: Task, film: Extracted) -> str | None:
        """Add a film to the store; return why that was not possible."""
        if film.problem is not None:
            return film.problem
        features = {f: rows for f, rows in film.features.items() if f in self.writer.fields}
        try:
            self.writer.add(task.name, features, film.facts)
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
