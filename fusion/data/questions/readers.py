"""Files of questions: VQA v2 and easy-VQA as published, and tables of own questions."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from reprlib import repr as short
from typing import Any, NamedTuple

from fusion.data.datasets.clips import unique_names
from fusion.data.features.problems import name_some
from fusion.data.questions.question import Question, guess_answer_type, guess_question_type
from fusion.data.untrusted.reading import read_json as read_any
from fusion.files import missing_folder

FORMS = (
    "a table with the columns image,question,answer; VQA v2's JSON with questions; or easy-VQA's"
    " JSON, a list of [question, answer, image number]"
)
SAME = "name the annotations of the same subset"


class QuestionError(ValueError):
    """A file of questions that cannot be used; one line with the file, the place, the way out."""


class Found(NamedTuple):
    """What a file of questions holds."""

    questions: list[Question]
    images: Path | None  # the folder where the images usually are; None: it is not known
    subset: str = ""  # of VQA v2: a folder of this name below that of the images may have them


def read_json(path: Path) -> Any:
    """Read a JSON file; QuestionError: it is not there, or is no JSON."""
    try:
        return read_any(path)
    except FileNotFoundError:
        raise QuestionError(f"{path}: no such file{missing_folder(path)}; check the path") from None
    except json.JSONDecodeError as error:
        raise QuestionError(
            f"{path}, line {error.lineno}: not JSON ({error.msg}); is the file whole?"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        said = getattr(error, "strerror", None) or error
        raise QuestionError(f"{path}: cannot be read ({said}); check it") from None


def make_question(
    where: str,
    text: Any,
    answers: Iterable[Any],
    image: str,
    name: str = "",
    answer_type: str = "",
    question_type: str = "",
) -> Question:
    """Make a question of raw values; ``where`` is its place in a file, for messages.

    QuestionError: the question or an answer is no text, or the question is empty.
    """
    if not isinstance(text, str):
        raise QuestionError(f"{where}: the question is {short(text)}, no text; write it in quotes")
    if not text.strip():
        raise QuestionError(f"{where}: the question is empty; write one, or remove it")
    given = tuple(answers)
    for answer in given:
        if not isinstance(answer, str):
            raise QuestionError(
                f"{where}: the answer is {short(answer)}, no text; write it in quotes"
            )
    return Question(
        name,
        sys.intern(text.strip()),
        tuple(map(sys.intern, given)),  # millions of answers are a few thousand texts
        sys.intern(image),
        sys.intern(answer_type or guess_answer_type(given)),
        sys.intern(question_type or guess_question_type(text)),
    )


def read_easy_vqa(path: Path, rows: Sequence[Any]) -> Found:
    """Read easy-VQA (github.com/vzhou842/easy-VQA): [question, answer, image number] each.

    Image N is ``images/N.png`` beside the file. A question is named like its image, ``0.png#2``.
    """
    images = []
    for number, row in enumerate(rows):
        is_row = isinstance(row, list) and len(row) == 3
        if not is_row or not isinstance(row[2], int) or isinstance(row[2], bool):
            raise QuestionError(
                f"{path}, question {number}: {short(row)} is not [question, answer, image number]"
            )
        images.append(f"{row[2]}.png")
    names = unique_names(images)
    questions = [
        make_question(f"{path}, question {number}", row[0], [row[1]], image, name)
        for number, (row, image, name) in enumerate(zip(rows, images, names, strict=True))
    ]
    return Found(questions, path.parent / "images")


def read_vqa(path: Path, content: Mapping[str, Any], annotations: Path | None) -> Found:
    """Read VQA v2 (arXiv:1612.00837), or v1: a file of questions and one of annotations.

    An image is COCO_SUBSET_ID.jpg, its number with 12 digits; of abstract scenes
    abstract_v002_SUBSET_ID.png. Without annotations the questions have no answers.

    QuestionError: the files do not fit together, or are not as published.
    """
    subset = str(content.get("data_subtype", "")).replace("-dev", "")  # they share the images
    kind = str(content.get("data_type", "mscoco"))
    stem, ending = ("COCO", "jpg") if kind == "mscoco" else (kind, "png")
    if not subset:
        raise QuestionError(f"{path}: no data_subtype, such as train2014, names the images; add it")
    known = None if annotations is None else _read_annotations(annotations)
    questions = []
    for number, row in enumerate(_rows(path, content, "questions")):
        where = f"{path}, question {number}"
        name, image = _ints(where, row, "question_id", "image_id")
        file = f"{stem}_{subset}_{image:012d}.{ending}"
        given, types = (), ("", "")
        if annotations is not None and known is not None:
            mark = known.pop(name, None)
            given, types = _annotated(f"{annotations}: question {name}", mark, image)
        questions.append(make_question(where, row.get("question"), given, file, str(name), *types))
    check_names(path, questions)
    if known:
        raise QuestionError(
            f"{annotations} answers {len(known)} questions that {path} does not have; {SAME}"
        )
    return Found(questions, None, subset)


def _rows(path: Path, content: Any, key: str) -> Iterable[Mapping[str, Any]]:
    rows = content.get(key) if isinstance(content, Mapping) else None
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise QuestionError(f"{path}: no list of {key}; name VQA v2's file of {key} as published")
    return rows


def _ints(where: str, row: Mapping[str, Any], *keys: str) -> list[int]:
    for key in keys:
        if not isinstance(row.get(key), int):
            raise QuestionError(f"{where}: {key} is {short(row.get(key))}; it must be a number")
    return [row[key] for key in keys]


def _read_annotations(path: Path) -> dict[int, Mapping[str, Any]]:
    found: dict[int, Mapping[str, Any]] = {}
    for number, row in enumerate(_rows(path, read_json(path), "annotations")):
        where = f"{path}, annotation {number}"
        name, _ = _ints(where, row, "question_id", "image_id")
        answers = row.get("answers")
        if not isinstance(answers, list) or not all(isinstance(a, Mapping) for a in answers):
            raise QuestionError(f"{where}: no list of answers; name the file as published")
        if name in found:
            raise QuestionError(f"{where}: question {name} is answered twice; remove one of them")
        found[name] = row
    return found


def _annotated(
    where: str, mark: Mapping[str, Any] | None, image: int
) -> tuple[tuple[Any, ...], tuple[str, str]]:
    """Return answers and types of a question about an image, if its annotation is of that image."""
    if mark is None:
        raise QuestionError(f"{where} has no annotation of its own; {SAME}")
    if mark["image_id"] != image:
        raise QuestionError(
            f"{where} is about image {mark['image_id']}, but {image} in the file of questions;"
            f" {SAME}"
        )
    answer_type, question_type = (
        str(mark.get(f"{what}_type") or "") for what in ("answer", "question")
    )
    return tuple(answer.get("answer") for answer in mark["answers"]), (answer_type, question_type)


def check_names(path: Path, questions: Sequence[Question]) -> None:
    """Check that every question has a name of its own."""
    counts = Counter(question.id for question in questions)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise QuestionError(
            f"{path}: {len(twice)} ids are those of several questions ({name_some(twice)}); give"
            " each question an id of its own"
        )
