"""Steps of films and when they occur: what all formats of annotations are read into."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from fusion.data.captions.table import Caption
from fusion.data.features.problems import name_some, warn


class StepError(ValueError):
    """Annotations that cannot be read; one line with the file, the place and the way out."""


@dataclasses.dataclass(frozen=True)
class StepCaption(Caption):
    """A step that occurs in a film; its text is that of the step.

    Attributes:
        step: its number among ``steps``.
        steps: those of the film, in their order; a film need not have all of them.
        task: what the film is about; films of one task are averaged first.
    """

    step: int
    steps: tuple[str, ...]
    task: str = ""


class Interval(NamedTuple):
    """When a step occurs, in seconds."""

    step: int
    start: float
    end: float


@dataclasses.dataclass(frozen=True)
class StepFilm:
    """A film with its steps, in their order, and when they occur."""

    video: str
    steps: tuple[str, ...]
    intervals: tuple[Interval, ...]
    task: str = ""


class Notes:
    """What is wrong with annotations, by kind: counted and named, one line for each kind."""

    def __init__(self) -> None:
        self._found: dict[str, dict[str, None]] = defaultdict(dict)

    def add(self, kind: str, name: str) -> None:
        """Note one problem of a kind; the same one counts once."""
        self._found[kind][name] = None

    @property
    def counts(self) -> dict[str, int]:
        """How many problems there are of each kind."""
        return {kind: len(names) for kind, names in self._found.items()}

    def lines(self) -> list[str]:
        """Write a line for each kind."""
        return [
            f"{len(names)} {kind} ({name_some(list(names))})" for kind, names in self._found.items()
        ]

    def say(self, source: str) -> None:
        """Warn of all that was found; ``source`` is where the annotations are from."""
        for line in self.lines():
            warn(f"{source}: {line}")

    def joined(self, other: Notes) -> Notes:
        """Put the problems of both together."""
        both = Notes()
        for notes in (self, other):
            for kind, names in notes._found.items():
                both._found[kind] |= names
        return both


NO_STEPS = "tasks without steps, left out"
NOWHERE = "steps that occur nowhere"
NO_ANNOTATION = "films without annotation, left out"
MISSING = "films missing, left out"
BEYOND = "intervals beyond the end of their film, cut off there"


def group_films(captions: Iterable[Caption]) -> list[StepFilm]:
    """Put the steps of each film together, in the order in which the films come."""
    by_film: dict[str, list[StepCaption]] = {}
    for caption in captions:
        assert isinstance(caption, StepCaption)
        by_film.setdefault(caption.video, []).append(caption)
    return [
        StepFilm(
            video,
            its[0].steps,
            tuple(Interval(c.step, c.start, c.end) for c in its),
            its[0].task,
        )
        for video, its in by_film.items()
    ]


def read_count(text: str) -> int | None:
    """Read a whole number of at most nine digits 0 to 9; None: the text is something else."""
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else None


def note_unused_steps(captions: Sequence[StepCaption], notes: Notes) -> None:
    """Note the steps of tasks that no film shows."""
    steps: dict[str, tuple[str, ...]] = {c.task: c.steps for c in captions if c.task}
    seen = {(c.task, c.step) for c in captions}
    for task, names in steps.items():
        for number, name in enumerate(names):
            if (task, number) not in seen:
                notes.add(NOWHERE, f"{name!r} of {task}")


def order_steps(first: Mapping[str, Sequence[float]]) -> tuple[str, ...]:
    """Order steps by the mean of some numbers, such as when each begins; ties by name."""
    means = {name: sum(values) / len(values) for name, values in first.items()}
    return tuple(sorted(means, key=lambda name: (round(means[name], 9), name)))
