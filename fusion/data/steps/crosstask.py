"""CrossTask (arXiv:1903.08225) as released: ``tasks_primary.txt`` and a csv file for each film."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from fusion.data.captions.table import CaptionParser
from fusion.data.steps.annotation import (
    NO_ANNOTATION,
    NO_STEPS,
    Notes,
    StepCaption,
    StepError,
    note_unused_steps,
    read_count,
)
from fusion.data.steps.table import Tasks
from fusion.files import missing_folder

TASKS, ANNOTATIONS = "tasks_primary.txt", "annotations"


def read_tasks(file: Path, notes: Notes) -> Tasks:
    """Read the steps of each task.

    A block of lines is about a task: its number, title, address, how many steps it has, and the
    steps with commas between them; a blank line ends it.

    Raises:
        StepError: the file cannot be read, or a block has other lines.
    """
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StepError(f"{file} cannot be read ({error}){missing_folder(file)}") from None
    tasks: Tasks = {}
    line = 1
    for is_blank, group in itertools.groupby(lines, key=lambda text: not text.strip()):
        block = [text.strip() for text in group]
        if not is_blank:
            tasks |= _task_of(block, file, line, notes)
        line += len(block)
    if not tasks:
        raise StepError(f"{file}: no tasks; take {TASKS} of CrossTask's release")
    return tasks


def _task_of(block: Sequence[str], file: Path, line: int, notes: Notes) -> Tasks:
    name = block[0]
    number = read_count(block[3]) if len(block) > 3 else None
    if number is None:
        raise StepError(
            f"{file}, line {line}: a task has five lines: number, title, address, how many steps it"
            f" has, and the steps with commas between them; here are {len(block)}"
        )
    steps = tuple(step.strip() for step in ",".join(block[4:]).split(",") if step.strip())
    if not steps:
        notes.add(NO_STEPS, name)
    elif len(steps) != number:
        raise StepError(
            f"{file}, line {line}: task {name} says it has {block[3]} steps and lists {len(steps)};"
            " correct one of them"
        )
    return {name: steps}


def read_video_pairs(file: Path) -> list[tuple[str, str]]:
    """Read a list of films such as ``videos_val.csv``: task, video and address in each line."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            return [(row[0].strip(), row[1].strip()) for row in csv.reader(lines) if len(row) > 1]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise StepError(f"{file} cannot be read ({error}){missing_folder(file)}") from None


def read_crosstask(
    folder: Path,
    max_bad: float,
    notes: Notes,
    videos: Path | None = None,
    tasks: Path | None = None,
) -> list[StepCaption]:
    """Read the annotations of a folder.

    ``annotations/{task}_{video}.csv``, or such files in the folder itself, have a line for each
    time that a step occurs: the number of the step, from 1, start and end in seconds.

    Args:
        folder: of the release.
        max_bad: the share of lines that cannot be used and is accepted.
        notes: what is wrong is added to it.
        videos: which films to take, see :func:`read_video_pairs`; None: all that have a file.
        tasks: of the steps; None: ``tasks_primary.txt`` of the folder.

    Raises:
        StepError or :class:`.CaptionError`: a file cannot be read, or too many lines.
    """
    known = read_tasks(tasks or folder / TASKS, notes)
    place = folder / ANNOTATIONS if (folder / ANNOTATIONS).is_dir() else folder
    files = {
        (task, video): file
        for file in sorted(place.glob("*_*.csv"))
        for task, _, video in [file.stem.partition("_")]
        if file.name not in ("videos_val.csv",) and task.isdigit()
    }
    if videos is not None:
        listed = read_video_pairs(videos)
        for task, video in listed:
            if (task, video) not in files:
                notes.add(NO_ANNOTATION, video)
        files = {pair: files[pair] for pair in listed if pair in files}
    if not files:
        raise StepError(f"{place}: no annotations of films; they are named TASK_VIDEO.csv")
    parser = CaptionParser(max_bad, timed=True)
    captions = []
    for (task, video), file in files.items():
        if not known.get(task):
            notes.add(NO_STEPS, task)
            continue
        its = list(_read_film(file, video, task, known[task], parser))
        if not its:
            notes.add(NO_ANNOTATION, video)
        captions += its
    parser.check()
    note_unused_steps(captions, notes)
    return captions


def _read_film(
    file: Path, video: str, task: str, steps: tuple[str, ...], parser: CaptionParser
) -> Iterator[StepCaption]:
    try:
        rows = list(csv.reader(file.read_text("utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        parser.refuse(f"{file} cannot be read ({error})")
        return
    for line, row in enumerate(rows, start=1):
        if not any(field.strip() for field in row):
            continue
        step, start, end, *_ = [*map(str.strip, row), "", "", ""]
        number = read_count(step)
        if number is None or not 1 <= number <= len(steps):
            parser.refuse(
                f"{file}, line {line}: step is {step!r}; task {task} has steps 1 to {len(steps)}"
            )
            continue
        made = parser.parse(f"{file}, line", line, video, start, end, steps[number - 1])
        if made is not None:
            yield StepCaption(**vars(made), step=number - 1, steps=steps, task=task)
