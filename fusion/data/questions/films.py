"""Questions about films, with what is seen and heard in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar

from fusion.data.captions.guess import Guesses
from fusion.data.captions.match import Ways, full_names
from fusion.data.captions.rows import read_table
from fusion.data.captions.table import Caption, CaptionParser
from fusion.data.datasets.captioned import CaptionedVideos
from fusion.data.datasets.clips import Clips
from fusion.data.datasets.dataset import ChangedClips
from fusion.data.features.problems import MAX_BAD
from fusion.data.questions.answers import score_row
from fusion.data.questions.question import Question
from fusion.data.questions.readers import QuestionError, check_names, make_question
from fusion.data.questions.tables import ANSWERS, FURTHER, answers_of, find_columns
from fusion.data.questions.vocabulary import WithAnswers
from fusion.interfaces import TextEncoder

NEEDED = ("video", "question")
TIMES = ("start", "end")


@dataclasses.dataclass(frozen=True)
class AskedWindow(Caption):
    """A question about a window of a film; its text is the question."""

    question: Question


def read_film_questions(
    place: Path, videos: Collection[str], max_bad: float = MAX_BAD, ways: Ways = lambda name: ()
) -> list[Caption]:
    """Read a table of questions about films, each under the full name of its film.

    Columns, in any order and case: ``video``, ``start`` and ``end`` in seconds, ``question``,
    ``answer`` or ``answers`` with ``|`` between them, and perhaps ``id``, ``answer_type`` and
    ``question_type``. Without start and end a question is about the whole film. The other
    arguments, and what a name or a time may be, are as for :func:`.match.read_all`.

    ValueError: a column is missing or unknown, a value cannot be used, or ``max_bad`` is exceeded.
    """
    parser, guesses = CaptionParser(max_bad), Guesses()
    table = read_table(place, guesses)
    guesses.say()
    columns = find_columns(place, table, NEEDED, (*TIMES, *ANSWERS, *FURTHER))
    windows: list[Caption | None] = []
    for line, fields in table.rows[1:]:
        row = dict(zip(columns, map(str.strip, fields), strict=False))
        name, *types = (row.get(column, "") for column in FURTHER)
        asked = row.get("question", "")
        question = make_question(f"{place}, line {line}", asked, answers_of(row), "", name, *types)
        video, start, end = (row.get(column) for column in ("video", *TIMES))
        where, text, separator = f"{place}, line", question.text, table.separator
        found = parser.parse(where, line, video, start, end, text, separator)
        windows.append(found and AskedWindow(**vars(found), question=question))
    captions = parser.finish(windows)
    parser.check()
    if not captions:
        raise QuestionError(f"{place}: no questions; write one in each line below the first")
    full = full_names({caption.video: None for caption in captions}, videos, place, ways)
    return [_of_film(caption, full[caption.video]) for caption in captions]


def _of_film(caption: Caption, film: str) -> Caption:
    assert isinstance(caption, AskedWindow)
    question = dataclasses.replace(caption.question, image=film)
    return dataclasses.replace(caption, video=film, question=question)


class AskedClips(ChangedClips):
    """Clips of films, each with a question as its text, and the scores of the answers.

    An item is that of :class:`.clips.Clips` with ``targets`` as in
    :class:`fusion.data.questions.clips.QuestionClips`.

    Attributes:
        questions: of each item.
    """

    def __init__(self, clips: Clips, answers: Sequence[str]) -> None:
        super().__init__(clips)
        self._index = {answer: place for place, answer in enumerate(answers)}
        self.questions = [
            dataclasses.replace(question, id=question.id or name)
            for question, name in zip(_asked(clips.captions), clips.ids, strict=True)
        ]

    @property
    def shows(self) -> Sequence[int]:
        """For each question its own number: several may be about one window."""
        return range(len(self))

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read a clip, and add its targets."""
        question = self.questions[index]
        scores = score_row(question.answers, self._index)
        return self.clips[index] | {"id": question.id, "targets": {"scores": scores}}


@dataclasses.dataclass(eq=False)
class FilmQuestions(WithAnswers, CaptionedVideos):
    """Questions about films in tables, see :func:`read_film_questions`.

    All other arguments are those of :class:`.captioned.CaptionedVideos`: films have features in a
    store or computed on the way, and a question takes the place of a caption.

    Args:
        num_answers: how many of the most frequent answers of the training a model can give; None:
            all of them.

    Raises:
        ValueError: a setting has no possible value.
    """

    about: ClassVar[str] = "film"
    num_answers: int | None = None
    _read_all: ClassVar[Callable[..., list[Caption]]] = staticmethod(read_film_questions)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_number()
        if self.group_captions:
            raise QuestionError("data.group_captions joins captions; set it to false for questions")

    def _captions(self, split: str) -> list[Caption]:
        return super()._captions(split)[: self.max_clips]

    def questions(self, split: str) -> list[Question]:
        """The questions of a split, also those whose film turns out to be missing."""
        questions = _asked(self._captions(split))
        check_names(self._place(split), [question for question in questions if question.id])
        return questions

    def clips(self, split: str, text_encoder: TextEncoder | None = None) -> AskedClips:  # type: ignore[override]
        """Read a split."""
        self.questions(split)
        return AskedClips(super().clips(split, text_encoder), self.answers)


def _asked(captions: Sequence[Caption]) -> list[Question]:
    return [caption.question for caption in captions if isinstance(caption, AskedWindow)]
