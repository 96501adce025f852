"""Logging of a run: a progress bar, ``metrics.jsonl``, Accelerate's trackers; and a clock."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from tqdm import tqdm

from fusion.config import flatten
from fusion.data.untrusted.reading import decode_json, read_bytes
from fusion.files import append_text, write_atomically

MOST_METRICS = 2**30  # bytes; a line has some hundred, one for each logged step
SHARES = ("reading", "communication", "waiting")  # of the time of training
AT_END = ("validation", "end")  # events at the end of an epoch


class RunLog:
    """Log of one run; silent on all processes but the main one.

    Rows are kept in ``rows``, appended to ``path`` (``metrics.jsonl``; None: nowhere) and passed to
    the accelerator's trackers. If the run was interrupted after ``done`` steps and ``epochs_done``
    epochs, later rows are dropped. ``what`` is written before the progress bar.
    """

    def __init__(
        self,
        path: Path | None,
        accelerator: Accelerator,
        steps: int,
        done: int,
        epochs_done: int,
        what: str = "training",
    ) -> None:
        self.path, self.accelerator = path, accelerator
        self.rows: list[dict[str, Any]] = []
        self._unwritten = ""  # lines for which the disk had no room
        self._said: set[str] = set()  # what could not be written
        self.on_main = accelerator.is_main_process
        if self.on_main and path is not None and path.exists():
            rows = [row for row in read_metrics(path) if row["step"] <= done]
            kept = [r for r in rows if r["event"] not in AT_END or r["epoch"] <= epochs_done]
            write_atomically(path, "".join(json.dumps(row) + "\n" for row in kept))
        self.bar = tqdm(
            total=steps,
            initial=done,
            unit="step",
            desc=what,
            disable=not self.on_main,
            mininterval=0.3 if sys.stderr.isatty() else 10,
            dynamic_ncols=True,
        )
        self._begin_shares()

    def step(
        self, clips: int, reading: float = 0.0, communication: float = 0.0, waiting: float = 0.0
    ) -> None:
        """Count one step and its clips.

        The others are seconds: it waited for its clips; it communicated, beyond what was computed
        at the same time; it waited in votes for other processes.
        """
        self._clips += clips
        for name, seconds in zip(SHARES, (reading, communication, waiting), strict=True):
            self._seconds[name] += seconds
        self.bar.update()

    def train(self, epoch: int, step: int, values: Mapping[str, float]) -> None:
        """Log the loss, its terms and the learning rate of a step.

        The row also has ``clips_per_second``, and of the time since the last row the shares of
        :meth:`step`: ``reading_share``, ``communication_share`` and ``waiting_share``. The rest is
        arithmetic.
        """
        elapsed = time.perf_counter() - self._since
        speed = self._clips / elapsed
        shares = {name: min(1.0, seconds / elapsed) for name, seconds in self._seconds.items()}
        self._begin_shares()
        said = [f"{name} {100 * share:.0f} %" for name, share in shares.items() if share >= 0.005]
        said = [f"loss {values['loss']:.3f}", f"{speed:.0f} clips/s", *said]
        self.bar.set_postfix_str(", ".join(said), refresh=False)
        measured = {"clips_per_second": speed, **{f"{n}_share": s for n, s in shares.items()}}
        self._write("train", epoch, step, {**values, **measured})

    def validation(self, epoch: int, step: int, values: Mapping[str, float]) -> None:
        """Log the results of an evaluation."""
        self._write("validation", epoch, step, values)
        self._begin_shares()

    def end(self, epoch: int, step: int, reason: str) -> None:
        """Log why training ended before its last epoch, and print it."""
        self.say(reason)
        self._write("end", epoch, step, {"reason": reason})

    def chunks(self, epoch: int, step: int, sizes: Sequence[int]) -> None:
        """Log how many clips each rank has in memory at a time."""
        self._write("memory", epoch, step, {f"chunk/{rank}": n for rank, n in enumerate(sizes)})

    def skipped(self, epoch: int, clips: Mapping[int, Sequence[str]]) -> None:
        """Log the clips of steps that were left out, by step."""
        for step, ids in clips.items():
            self._write("skipped", epoch, step, {"clips": list(ids)})

    def say(self, message: str | None) -> None:
        """Print a line above the progress bar, if there is a message."""
        if self.on_main and message:
            tqdm.write(message, file=sys.stderr)

    def close(self) -> None:
        """End the progress bar."""
        self.bar.close()

    def _begin_shares(self) -> None:
        self._since, self._clips = time.perf_counter(), 0
        self._seconds = dict.fromkeys(SHARES, 0.0)

    def _write(self, event: str, epoch: int, step: int, values: Mapping[str, Any]) -> None:
        row = {"event": event, "epoch": epoch, "step": step, **values}
        self.rows.append(row)
        if not self.on_main:
            return
        if self.path is not None:
            self._append(self.path, json.dumps(row) + "\n")
        numbers = {k: v for k, v in values.items() if not isinstance(v, list)}
        with self._surviving("the curves of the trackers"):
            curves = {f"{event}/{key}": value for key, value in numbers.items()}
            self.accelerator.log(curves, step=step)

    def _append(self, path: Path, line: str) -> None:
        """Write a line, and those before it that could not be written."""
        self._unwritten += line
        with self._surviving(str(path)):
            append_text(path, self._unwritten)
            self._unwritten = ""

    @contextmanager
    def _surviving(self, what: str) -> Iterator[None]:
        """Go on training if a log cannot be written, such as on a full disk; say it once."""
        try:
            yield
        except OSError as error:
            if what not in self._said:
                self._said.add(what)
                self.say(f"{what} cannot be written ({error}); training goes on: make room")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read the rows of ``metrics.jsonl``; a line that is cut off or is no row is dropped."""
    rows = []
    content = read_bytes(path, MOST_METRICS).decode("utf-8", "replace") if path.exists() else ""
    for line in content.splitlines():
        try:
            row = decode_json(line)
        except ValueError:
            continue
        if isinstance(row, dict) and _is_row(row):
            rows.append(row)
    return rows


def _is_row(row: Mapping[str, Any]) -> bool:
    return isinstance(row.get("event"), str) and all(
        type(row.get(key)) is int for key in ("epoch", "step")
    )


def tracker_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten a config to plain values, which every tracker can store."""
    plain = (int, float, str, bool)
    return {k: v if isinstance(v, plain) else str(v) for k, v in flatten(config).items()}


class Stopwatch:
    """Adds up the seconds within its ``with`` blocks."""

    def __init__(self) -> None:
        self._seconds = self._begun = 0.0

    def __enter__(self) -> None:
        self._begun = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self._seconds += time.perf_counter() - self._begun

    def take(self) -> float:
        """Return the seconds since the last call."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds


class Clock:
    """Adds up the seconds that the parts of a job take."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._start = time.perf_counter()

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Add the time of the ``with`` block to a part of the job."""
        start = time.perf_counter()
        yield
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - start

    def __str__(self) -> str:
        whole = time.perf_counter() - self._start
        parts = ", ".join(f"{part} {seconds:.0f} s" for part, seconds in self.seconds.items())
        return f"{parts}; {whole:.0f} s in all"
