"""The outcome of each file: on the screen, and as ``report.json`` and ``report.txt`` in the store.

Videos in the store have their problems among their facts. The others are noted by each process in a
file of its own, as processes do not communicate; the process that finds the notes of all others is
the last.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fusion.data.features.store import FeatureStore
from fusion.data.media.film import PARTIAL
from fusion.files import write_atomically
from fusion.words import number_of

CHANGED = "changed since: "  # begins a problem of a file other than the one in the store
_ON_SCREEN = 60  # files; all are in report.txt


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The outcome of a file."""

    video: str
    rows: Mapping[str, int]  # of each field; empty if the video is not in the store
    seconds: float  # decoded
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()  # which of several tracks were taken

    @property
    def state(self) -> str:
        """``ok``, ``partial`` or ``failed``."""
        if not self.rows:
            return "failed"
        return "partial" if any(p.startswith(PARTIAL) for p in self.problems) else "ok"


@dataclasses.dataclass(frozen=True)
class Outcomes:
    """The outcomes of all files, by name; ``complete`` if all processes are done."""

    files: tuple[Outcome, ...]
    fields: tuple[str, ...]  # of the store
    complete: bool

    @property
    def usable(self) -> int:
        """Number of videos in the store."""
        return sum(file.state != "failed" for file in self.files)

    @property
    def exit_code(self) -> int:
        """1 if all processes are done and no video is in the store, else 0."""
        return int(self.complete and not self.usable)

    def summary(self) -> str:
        """Sum up in one line."""
        states = [file.state for file in self.files]
        counts = ", ".join(f"{states.count(s)} {s}" for s in ("ok", "partial", "failed"))
        hours = sum(file.seconds for file in self.files if file.rows) / 3600
        return f"{number_of(len(states), 'file')}: {counts} ({hours:.2f} h of film)"

    def for_screen(self) -> str:
        """Write a table of at most 60 files; of more files, only of those with problems."""
        many = len(self.files) > _ON_SCREEN
        wrong = [file for file in self.files if file.problems and many]
        return self.table((wrong or self.files)[:_ON_SCREEN])

    def table(self, files: Sequence[Outcome]) -> str:
        """Write a table of some of the files, and the summary of all."""
        body = [
            [_printable(file.video), file.state, f"{file.seconds:.1f}"]
            + [str(file.rows.get(field, "-")) for field in self.fields]
            + [_printable("; ".join([*file.problems, *file.notes]))]
            for file in files
        ]
        rows = [["file", "state", "seconds", *self.fields, "problems"], *body]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        sides = ["<", "<", *">" * (len(widths) - 3), "<"]  # numbers are flush right
        specs = [f"{side}{width}" for side, width in zip(sides, widths, strict=True)]
        lines = ["  ".join(map(format, row, specs)).rstrip() for row in rows]
        if left := len(self.files) - len(files):
            lines.append(f"… and {left} more in report.txt")
        return "\n".join([*lines, "", self.summary()])


def note_failures(store: Path, rank: int, failures: Mapping[str, str]) -> None:
    """Note which files of a process's share are not in the store, and why."""
    write_atomically(_note(store, rank), json.dumps(dict(failures), indent=1) + "\n")


def forget_failures(store: Path, rank: int, world_size: int) -> None:
    """Remove the note of this process of an earlier run; rank 0 removes those of no process."""
    _note(store, rank).unlink(missing_ok=True)
    if rank == 0:
        ours = {_note(store, other) for other in range(world_size)}
        for file in set(_note(store, 0).parent.glob("*.json")) - ours:
            file.unlink(missing_ok=True)


def collect_outcomes(store: Path, videos: Iterable[str], world_size: int) -> Outcomes:
    """Collect the outcomes of all processes that are done, and write them into the store.

    Two processes that end at once may each find the other's note and write the same; a process that
    finds another note after it has written writes again, so the last report is complete.
    """
    videos = list(videos)
    while True:
        notes = _notes(store, world_size)
        failures = {k: v for file in notes for k, v in json.loads(file.read_text()).items()}
        features = FeatureStore(store)
        files = tuple(_outcome(features, video, failures.get(video)) for video in videos)
        outcomes = Outcomes(files, tuple(features.fields), len(notes) == world_size)
        _write(store, outcomes)
        if len(_notes(store, world_size)) == len(notes):
            return outcomes


def _outcome(features: FeatureStore, video: str, failure: str | None) -> Outcome:
    if video not in features:
        return Outcome(video, {}, 0.0, (failure or "not done yet",))
    facts = features.facts(video)
    rows = {field: features.rows(video, field) for field in features.fields}
    problems = [*facts.get("problems", ()), *([failure] if failure else [])]
    notes = tuple(facts.get("notes", ()))
    return Outcome(video, rows, facts.get("duration", 0.0), tuple(problems), notes)


def _write(store: Path, outcomes: Outcomes) -> None:
    content: dict[str, Any] = {
        "summary": outcomes.summary(),
        "complete": outcomes.complete,
        "files": [{"state": file.state} | dataclasses.asdict(file) for file in outcomes.files],
    }
    write_atomically(store / "report.json", json.dumps(content, indent=1) + "\n")
    write_atomically(store / "report.txt", outcomes.table(outcomes.files) + "\n")


def _notes(store: Path, world_size: int) -> list[Path]:
    return [file for rank in range(world_size) if (file := _note(store, rank)).exists()]


def _note(store: Path, rank: int) -> Path:
    return store / "notes" / f"rank{rank}.json"


def _printable(text: str) -> str:
    """Make a text, such as a file name, fit for one line of any screen."""
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return shown.encode(errors="replace").decode()
