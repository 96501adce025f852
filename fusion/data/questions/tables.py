"""Tables of own questions: csv or tsv files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from fusion.data.captions.guess import Guesses
from fusion.data.captions.rows import Table, read_table
from fusion.data.datasets.clips import unique_names
from fusion.data.questions.question import Question
from fusion.data.questions.readers import Found, QuestionError, check_names, make_question
from fusion.parts import nearest

NEEDED = ("image", "question")
ANSWERS = ("answer", "answers")
FURTHER = ("id", "answer_type", "question_type")
BETWEEN = "|"  # of several answers in one field


def read_question_table(path: Path) -> Found:
    """Read a table: one line names the columns, and each other line is a question.

    Columns, in any order and case: ``image`` (a file, relative to the folder of images),
    ``question``, and ``answer``, or ``answers`` with ``|`` between the answers of several people;
    both may be empty or missing where the answer is not known. Optional: ``id``, ``answer_type``
    and ``question_type``. Without ids a question is named like its image: ``a.jpg``, ``a.jpg#2``.
    Encoding and separator: see :func:`fusion.data.captions.rows.read_table`.

    QuestionError or :class:`.CaptionError`: a column is missing or unknown, a value cannot be used.
    """
    guesses = Guesses()
    table = read_table(path, guesses)
    guesses.say()
    columns = find_columns(path, table, NEEDED, (*ANSWERS, *FURTHER))
    questions = []
    for line, fields in table.rows[1:]:
        where = f"{path}, line {line}"
        row = dict(zip(columns, map(str.strip, fields), strict=False))
        if any(not row.get(column) for column in NEEDED):
            missing = next(column for column in NEEDED if not row.get(column))
            raise QuestionError(f"{where}: the {missing} is empty; write one, or remove the line")
        more = [row.get(name, "") for name in FURTHER]
        questions.append(
            make_question(where, row["question"], answers_of(row), row["image"], *more)
        )
    if "id" in columns:
        if nameless := [n for n, question in enumerate(questions) if not question.id]:
            line = table.rows[1 + nameless[0]][0]
            raise QuestionError(f"{path}, line {line}: the id is empty; write one in every line")
        check_names(path, questions)
    else:
        questions = _named(questions)
    return Found(questions, path.parent)


def answers_of(row: dict[str, str]) -> list[str]:
    """List the answers of a line, by the names of its columns: ``answers``, else ``answer``."""
    several = [part.strip() for part in row.get("answers", "").split(BETWEEN)]
    return [answer for answer in several if answer] or list(filter(None, [row.get("answer", "")]))


def find_columns(
    path: Path, table: Table, needed: tuple[str, ...], further: tuple[str, ...]
) -> list[str]:
    """Return the names of the columns in lower case; QuestionError: unknown, twice or missing."""
    known = (*needed, *further)
    names = [name.strip().lower() for name in (table.rows[0][1] if table.rows else [])]
    for name in names:
        if name not in known or names.count(name) > 1:
            why = "there twice" if name in known else f"unknown{nearest(name, known)}"
            raise QuestionError(
                f"{path}, line 1: the column {name!r} is {why} (read as {table.read_as})"
            )
    if missing := [name for name in needed if name not in names]:
        raise QuestionError(
            f"{path}, line 1: no column {' and '.join(missing)}; the first line names the columns"
            f" {', '.join(needed)} and answer or answers (read as {table.read_as})"
        )
    return names


def _named(questions: list[Question]) -> list[Question]:
    names = unique_names([question.image for question in questions])
    return [dataclasses.replace(q, id=n) for q, n in zip(questions, names, strict=True)]
