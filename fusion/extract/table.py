"""What came out of each file: on the screen, and as ``report.json`` and ``report.txt``.

What is in the store says so itself. What is not is noted by each process in a file of its own, as
processes do not talk; whoever finds that all others have written theirs is the last.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fusion.data.features.store import FeatureStore
from fusion.files import write_atomically
from fusion.words import number_of

PARTIAL = "partial: "  # what begins a problem of a video of which a part is missing
CHANGED = "changed since: "  # of a file that is not the one whose features are in the store
_NOTES = "notes"  # folder of the processes' files
_ON_SCREEN = 60  # files; all are in report.txt


@dataclasses.dataclass(frozen=True)
class Line:
    """What came out of a file.

    Attributes:
        video: its name.
        rows: of each field, 0 where there are none; empty if the video is not in the store.
        seconds: that it lasts, as far as it could be decoded.
        problems: what is wrong with it.
    """

    video: str
    rows: Mapping[str, int]
    seconds: float
    problems: tuple[str, ...]

    @property
    def state(self) -> str:
        """``ok``, ``partial`` or ``failed``."""
        if not self.rows:
            return "failed"
        return "partial" if any(p.startswith(PARTIAL) for p in self.problems) else "ok"


@dataclasses.dataclass(frozen=True)
class Report:
    """What came out of all files.

    Attributes:
        lines: one for each, by name.
        fields: of the store.
        complete: whether all processes are done.
    """

    lines: tuple[Line, ...]
    fields: tuple[str, ...]
    complete: bool

    @property
    def usable(self) -> int:
        """How many videos are in the store."""
        return sum(line.state != "failed" for line in self.lines)

    def summary(self) -> str:
        """Say it in one line."""
        states = [line.state for line in self.lines]
        ok, partial, failed = (states.count(s) for s in ("ok", "partial", "failed"))
        hours = sum(line.seconds for line in self.lines if line.rows) / 3600
        files = number_of(len(states), "file")
        return f"{files}: {ok} whole, {partial} in part, {failed} not ({hours:.2f} h)"

    @property
    def exit_code(self) -> int:
        """0 if something could be used, 1 if not; 0 where others are not done yet."""
        return int(self.complete and not self.usable)

    def for_screen(self) -> str:
        """Write a table that is not too long."""
        return self.table(_ON_SCREEN)

    def table(self, most: int | None = None) -> str:
        """Write a table; of more than ``most`` files only those with problems, and not all."""
        lines: Sequence[Line] = self.lines
        left = 0
        if most is not None and len(lines) > most:
            wrong = [line for line in lines if line.problems]
            lines = (wrong or lines)[:most]
            left = len(self.lines) - len(lines)
        head = ["file", "state", "seconds", *self.fields, "what is wrong"]
        body = [
            [_plain(line.video), line.state, f"{line.seconds:.1f}"]
            + [str(line.rows.get(field, "-")) for field in self.fields]
            + [_plain("; ".join(line.problems))]
            for line in lines
        ]
        widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
        rows = [_justified(row, widths) for row in [head, *body]]
        if left:
            rows.append(f"… and {left} more in report.txt")
        return "\n".join([*rows, "", self.summary()])


def note(store: Path, rank: int, failures: Mapping[str, str]) -> None:
    """Write down which files of a process's share are not in the store, and why."""
    write_atomically(_notes_of(store, rank), json.dumps(dict(failures), indent=1) + "\n")


def forget(store: Path, rank: int, world: int) -> None:
    """Remove what this process noted in an earlier run; process 0 also what is nobody's."""
    _notes_of(store, rank).unlink(missing_ok=True)
    if rank == 0:
        ours = {_notes_of(store, other).name for other in range(world)}
        for file in (store / _NOTES).glob("*.json"):
            if file.name not in ours:
                file.unlink(missing_ok=True)


def make_report(store: Path, videos: Iterable[str], world: int) -> Report:
    """Put a report together, and write it into the store.

    Two processes that end at once may each find the other's note and write the same; one that
    finds a note only after it has written writes again, so the last report has everything.

    Args:
        store: the folder.
        videos: that were asked for.
        world: number of processes.

    Returns:
        The report as far as processes are done.
    """
    videos = list(videos)
    while True:
        notes = _notes(store, world)
        failures: dict[str, str] = {}
        for file in notes:
            failures |= json.loads(file.read_text())
        report = _collect(store, videos, failures, len(notes) == world)
        _write(store, report)
        if len(_notes(store, world)) == len(notes):
            return report


def _collect(
    store: Path, videos: Sequence[str], failures: Mapping[str, str], complete: bool
) -> Report:
    features = FeatureStore(store)
    lines = []
    for video in videos:
        problems = [failures[video]] if video in failures else []
        if video not in features:
            lines.append(Line(video, {}, 0.0, tuple(problems or ["not done yet"])))
            continue
        facts = features.facts(video)
        rows = {field: features.rows(video, field) for field in features.fields}
        problems = [*facts.get("problems", ()), *problems]
        lines.append(Line(video, rows, facts.get("duration", 0.0), tuple(problems)))
    return Report(tuple(lines), tuple(features.fields), complete)


def _write(store: Path, report: Report) -> None:
    content: dict[str, Any] = {
        "summary": report.summary(),
        "complete": report.complete,
        "files": [{"state": line.state} | dataclasses.asdict(line) for line in report.lines],
    }
    write_atomically(store / "report.json", json.dumps(content, indent=1) + "\n")
    write_atomically(store / "report.txt", report.table() + "\n")


def _notes(store: Path, world: int) -> list[Path]:
    return [file for rank in range(world) if (file := _notes_of(store, rank)).exists()]


def _notes_of(store: Path, rank: int) -> Path:
    return store / _NOTES / f"rank{rank}.json"


def _justified(row: Sequence[str], widths: Sequence[int]) -> str:
    left = (0, 1, len(row) - 1)
    cells = [
        cell.ljust(w) if i in left else cell.rjust(w)
        for i, (cell, w) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()


def _plain(text: str) -> str:
    """Make a text of a file's name that every screen can show on one line."""
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return shown.encode(errors="replace").decode()
