"""Steps in a table: one's own, or such as CrossTask's as VT-TWINS publishes it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fusion.data.captions.guess import Guesses
from fusion.data.captions.rows import Table, read_table
from fusion.data.captions.table import Caption, CaptionParser
from fusion.data.steps.annotation import (
    NO_STEPS,
    Notes,
    StepCaption,
    StepError,
    note_unused_steps,
    order_steps,
)

COLUMNS = {  # our own name first, then those of published tables
    "video": ("video", "video_id", "film", "file"),
    "step": ("step", "text", "action", "label"),
    "start": ("start", "start_time"),
    "end": ("end", "end_time"),
    "task": ("task", "task_id"),
    "order": ("order",),
}
NEEDED = ("video", "step", "start", "end")


class _Row(NamedTuple):
    caption: Caption
    task: str
    order: float | None


Tasks = dict[str, tuple[str, ...]]  # the steps of each task, in order


def read_steps(
    file: Path, max_bad: float, notes: Notes, tasks: Tasks | None = None
) -> list[StepCaption]:
    """Read a table with the columns ``video``, ``step``, ``start`` and ``end``, in any order.

    Optional: ``task`` (films of one task have the same steps) and ``order``, a number by which the
    steps of a film or task are sorted. Without it, the steps of a film are in the order in which
    they begin; those of a task in the order of the mean over films of where a step begins first, as
    a share of the annotated part of the film. ``tasks`` gives the steps of tasks instead.

    Raises:
        StepError or :class:`.CaptionError`: a column is missing, or more than ``max_bad`` of the
            rows cannot be used.
    """
    rows = _read_rows(file, max_bad)
    has_tasks = any(row.task for row in rows)
    known = _tasks_of(rows) if has_tasks and tasks is None else tasks or {}
    captions = []
    by_film: dict[str, list[_Row]] = defaultdict(list)
    for row in rows:
        by_film[row.caption.video].append(row)
    for video, its in by_film.items():
        named = {row.task for row in its}
        if len(named) > 1:
            raise StepError(
                f"{file}: {video} has the tasks {', '.join(sorted(named))}; a film has one: name"
                " its parts like films of their own"
            )
        task = next(iter(named))
        steps = known.get(task, ()) if has_tasks else _steps_of(its)
        if not steps:
            notes.add(NO_STEPS, task)
            continue
        for row in its:
            if row.caption.text in steps:
                number = steps.index(row.caption.text)
                captions.append(
                    StepCaption(**vars(row.caption), step=number, steps=steps, task=task)
                )
            else:
                notes.add(
                    "steps that their task lacks, left out", f"{row.caption.text!r} of {task}"
                )
    note_unused_steps(captions, notes)
    return captions


def _read_rows(file: Path, max_bad: float) -> list[_Row]:
    guesses, parser = Guesses(), CaptionParser(max_bad, timed=True)
    table = read_table(file, guesses, parser.refuse)
    guesses.say()
    places = _places(file, table)
    rows, needed = [], max(places.values())
    for line, fields in table.rows[1:]:
        if len(fields) <= needed and any(places[c] >= len(fields) for c in NEEDED):
            parser.refuse(f"{file}, line {line}: {len(fields)} columns, fewer than the first line")
            continue
        row: dict[str, Any] = {
            column: fields[place].strip() if place < len(fields) else ""
            for column, place in places.items()
        }
        times, text = (row["start"], row["end"]), row["step"]
        if not text:
            parser.refuse(f"{file}, line {line}: the step is empty")
            continue
        where = f"{file}, line"
        made = parser.parse(where, line, row["video"], *times, text, sep=table.separator)
        if made is not None:
            rows.append(_Row(made, row.get("task", ""), _order(row.get("order", ""), where, line)))
    parser.check()
    if not rows:
        raise StepError(f"{file}: no steps; write one in each line below the first")
    return rows


def _places(file: Path, table: Table) -> dict[str, int]:
    header = [name.strip().lower() for name in table.rows[0][1]] if table.rows else []
    places = {
        column: header.index(name)
        for column, names in COLUMNS.items()
        for name in [next((n for n in names if n in header), None)]
        if name is not None
    }
    if missing := [column for column in NEEDED if column not in places]:
        raise StepError(
            f"{file}, line 1: no column {', '.join(missing)} among {', '.join(header) or 'none'};"
            f" the first line names the columns {', '.join(NEEDED)} (and perhaps task and order)"
        )
    return places


def _order(value: str, where: str, line: int) -> float | None:
    if not value:
        return None
    try:
        return float(value)
    except ValueError:
        raise StepError(
            f"{where} {line}: order is {value!r}; write a number, such as 1, or leave it empty"
        ) from None


def _steps_of(rows: Sequence[_Row]) -> tuple[str, ...]:
    """Order the steps of one film: by ``order``, else by when they begin first."""
    first: dict[str, list[float]] = {}
    by_order = all(row.order is not None for row in rows)
    for row in rows:
        value = row.order if by_order and row.order is not None else row.caption.start
        text = row.caption.text
        first[text] = [min(value, *first.get(text, [value]))]
    return order_steps(first)


def _tasks_of(rows: Sequence[_Row]) -> Tasks:
    """Order the steps of each task: by ``order``, else by where in a film they begin first."""
    films: dict[tuple[str, str], list[_Row]] = defaultdict(list)
    for row in rows:
        films[row.task, row.caption.video].append(row)
    first: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (task, _), its in films.items():
        begin = min(row.caption.start for row in its)
        span = max(row.caption.end for row in its) - begin
        by_order = all(row.order is not None for row in its)
        places: dict[str, float] = {}
        for row in its:
            value = (row.caption.start - begin) / span
            if by_order and row.order is not None:
                value = row.order
            places[row.caption.text] = min(value, places.get(row.caption.text, value))
        for text, place in places.items():
            first[task][text].append(place)
    return {task: order_steps(steps) for task, steps in first.items()}
