"""Where the questions of a split are, and what form their file has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fusion.data.questions.readers import (
    FORMS,
    Found,
    QuestionError,
    read_easy_vqa,
    read_json,
    read_vqa,
)
from fusion.data.questions.tables import read_question_table
from fusion.parts import nearest

KEYS = ("questions", "annotations")


class Place(NamedTuple):
    """The file of the questions of a split, and for VQA v2 that of the answers."""

    questions: Path
    annotations: Path | None = None


def place_of(key: str, value: str | Mapping[str, Any]) -> Place:
    """Make a place of a file, or of ``{questions: FILE, annotations: FILE}``.

    ``key`` is where the config has it. QuestionError: a key is unknown, missing, or no text.
    """
    files = {"questions": value} if isinstance(value, str) else value
    for name, file in files.items():
        if name not in KEYS:
            raise QuestionError(f"{key}.{name} is unknown{nearest(str(name), KEYS)}")
        if not isinstance(file, str):
            raise QuestionError(f"{key}.{name} must be a file; got {file!r}")
    if "questions" not in files:
        raise QuestionError(f"{key}.questions is missing; add the file of questions")
    return Place(*(Path(files[name]).expanduser() for name in KEYS if name in files))


def read_questions(place: Place) -> Found:
    """Read the questions of a split; what is in a file says its form.

    QuestionError or :class:`.CaptionError`: the file is of no known form, has no questions, or
    cannot be used.
    """
    path = place.questions
    if path.suffix.lower() != ".json":
        found = read_question_table(path)
    else:
        content = read_json(path)
        if isinstance(content, Mapping) and "questions" in content:
            found = read_vqa(path, content, place.annotations)
        elif isinstance(content, list):
            found = read_easy_vqa(path, content)
        else:
            raise QuestionError(f"{path}: no file of questions; it can be {FORMS}")
    if place.annotations is not None and not found.subset:
        raise QuestionError(
            f"{path} is not VQA v2's file of questions, so annotations do not belong to it; name"
            " the file alone"
        )
    if not found.questions:
        raise QuestionError(f"{path}: no questions; it can be {FORMS}")
    return found
