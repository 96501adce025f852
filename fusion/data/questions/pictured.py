"""Questions about images, in files, as a data set."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fusion.data.datasets.dataset import SPLITS, Source, check_settings
from fusion.data.features.problems import warn
from fusion.data.questions.clips import FirstSimple, QuestionClips
from fusion.data.questions.images import Images
from fusion.data.questions.places import place_of, read_questions
from fusion.data.questions.question import Question
from fusion.data.questions.readers import Found, QuestionError, read_json
from fusion.data.questions.vocabulary import WithAnswers
from fusion.interfaces import TextEncoder
from fusion.words import number_of

LARGEST = 4096  # pixels
SIMPLE = "simple"  # name of further training questions, beside the splits


@dataclasses.dataclass(eq=False)
class PicturedQuestions(WithAnswers, Source):
    """Questions about images: VQA v2, easy-VQA or a table of own ones.

    Args:
        train: a file of questions, see :func:`.places.read_questions`; for VQA v2
            ``{questions: FILE, annotations: FILE}``. Training needs it.
        validation: the same, for choosing the best checkpoint.
        test: the same, for the table at the end of a run.
        images: folder of the images, or one for each split. VQA v2 needs it; it may also have a
            folder ``train2014`` and the like. Otherwise images are in ``images`` beside easy-VQA's
            file, and named relative to the folder of a table.
        image_size: pixels; every image is scaled to a square of so many.
        num_answers: how many of the most frequent answers of the training a model can give; None:
            all of them.
        held_out: without ``validation``, the share of the training images whose questions are it
            instead; images are drawn by their names.
        bad: questions about an image that cannot be read have no image (``missing``), or are left
            out (``leave_out``).
        max_bad: the share of images that may be unreadable.
        ceilings: JSON file of the best results possible, by split and row of the table.
        simple: easy training questions, added to those of ``train``; answers that occur here alone
            are not learnt.
        first_epochs: number of epochs at the start that use ``simple`` alone.

    Raises:
        ValueError: a setting has no possible value.
    """

    train: str | Mapping[str, Any] | None = None
    validation: str | Mapping[str, Any] | None = None
    test: str | Mapping[str, Any] | None = None
    images: str | Mapping[str, Any] | None = None
    image_size: int = 224
    num_answers: int | None = None
    held_out: float = 0.1
    bad: str = "missing"
    max_bad: float = 0.05
    ceilings: str | None = None
    simple: str | Mapping[str, Any] | None = None
    first_epochs: int = 0

    def __post_init__(self) -> None:
        given = {split: getattr(self, split) for split in (*SPLITS, SIMPLE)}
        places = {s: place_of(f"data.{s}", value) for s, value in given.items() if value}
        self._draws = bool(self.held_out and self.train and not self.validation)
        if self._draws:
            places["validation"] = places["train"]
        self._places = {split: places[split] for split in given if split in places}
        super().__init__({split: str(place.questions) for split, place in self._places.items()})
        check_settings(self.bad, self.max_bad)
        if not 0 <= self.held_out < 1:
            raise QuestionError(f"data.held_out ({self.held_out}) is a share, such as 0.1")
        if not 1 <= self.image_size <= LARGEST:
            raise QuestionError(
                f"data.image_size is {self.image_size}; it must be between 1 and {LARGEST} pixels"
            )
        if self.first_epochs < 0 or bool(self.first_epochs) > bool(self.simple):
            raise QuestionError(
                f"data.first_epochs is {self.first_epochs}; it must be at least 0, and above 0 only"
                " with a file of questions in data.simple"
            )
        self.check_number()
        self._found: dict[Any, Found] = {}
        self._questions: dict[str, list[Question]] = {}
        self._images: dict[tuple[Path, tuple[str, ...]], Images] = {}

    def questions(self, split: str) -> list[Question]:
        """The questions of a split, also those whose image turns out to be unreadable.

        ValueError: there is no such split, or its file cannot be used.
        """
        if split not in self._questions:
            if self._draws and split in ("train", "validation"):
                self._draw()
            else:
                self._questions[split] = self._read(split).questions
            for name, questions in self._questions.items():
                self._questions[name] = questions[: self.max_clips]
        return self._questions[split]

    def clips(
        self, split: str, text_encoder: TextEncoder | None = None
    ) -> QuestionClips | FirstSimple:
        """Read a split; the images are decoded first, unless the cache has them.

        ValueError: also if too many images cannot be read.
        """
        clips = self._clips(split, text_encoder)
        if split == "train" and self.simple:
            simple = self._clips(SIMPLE, text_encoder)
            if not len(simple):
                raise QuestionError(
                    f"{self._places[SIMPLE].questions} (data.simple) has no question for training:"
                    " none has an image that can be read and is not held out"
                )
            return FirstSimple(clips, simple, self.first_epochs)
        return clips

    def extract(self) -> None:
        """Decode the images of all splits into the cache."""
        for split in self.files:
            self._open_images(split)

    def texts(self, split: str) -> list[str]:
        """The questions' texts, those of training with the simple ones."""
        splits = [split, SIMPLE] if split == "train" and self.simple else [split]
        return [question.text for name in splits for question in self.questions(name)]

    def describe(self, split: str) -> str:
        """Say what the questions of a split are."""
        file, questions = self._file(split, "file of questions"), self.questions(split)
        images = number_of(len({question.image for question in questions}), "image")
        held = " held out" if self._draws and split == "validation" else ""
        return (
            f"{'/'.join(file.parts[-2:])}, {number_of(len(questions), 'question')} about"
            f" {images}{held}"
        )

    def recipe(self) -> dict[str, Any]:
        """Say how an image is made ready, so that a model is not asked about other sizes."""
        return {"features": {"image_size": self.image_size}}

    def ceiling(self, split: str) -> Mapping[str, Any] | None:
        """The best results possible, by row of the table; None if they are not known."""
        if self.ceilings is None:
            return None
        found = read_json(Path(self.ceilings).expanduser())
        if not isinstance(found, Mapping):
            raise QuestionError(f"{self.ceilings}: must hold {{split: {{row: number}}}}")
        return found.get(split)

    def _clips(self, split: str, text_encoder: TextEncoder | None) -> QuestionClips:
        questions, images = self.questions(split), self._open_images(split)
        if self.bad == "leave_out":
            questions = [q for q in questions if q.image not in images.unreadable]
        if split == SIMPLE and self._draws and images.folder == self._folder("validation"):
            held = {question.image for question in self.questions("validation")}
            questions = [q for q in questions if q.image not in held]
        if split in ("train", SIMPLE):  # so that the questions about an image are neighbours
            first = {question.image: -n for n, question in enumerate(reversed(questions))}
            questions = sorted(questions, key=lambda question: first[question.image])
        return QuestionClips(questions, images, text_encoder, self.answers)

    def _read(self, split: str) -> Found:
        self._file(split, "file of questions")
        place = self._places[split]
        if place not in self._found:
            self._found[place] = read_questions(place)
        return self._found[place]

    def _draw(self) -> None:
        """Draw the images whose questions are the validation."""
        file, questions = self._file("train", "file"), self._read("train").questions
        held = draw_images(questions, self.held_out, file)
        parts = [[q for q in questions if (q.image in held) == side] for side in (False, True)]
        self._questions |= {"train": parts[0], "validation": parts[1]}
        warn(
            f"{number_of(len(held), 'image')}, with {number_of(len(parts[1]), 'question')}, are"
            " held out for validation, drawn by name; data.validation=FILE names others"
        )

    def _open_images(self, split: str) -> Images:
        """Open the images of a split, and report once which cannot be read."""
        # One array for a file, whatever is held out of it; a trial takes those of its questions.
        all_of = self._read(split) if self.max_clips is None else None
        questions = self.questions(split) if all_of is None else all_of.questions
        folder = self._folder(split)
        names = tuple(sorted({question.image for question in questions}))
        if (folder, names) not in self._images:
            images = Images(folder, names, self.image_size)
            images.check(self._places[split].questions, self.bad, self.max_bad)
            self._images[folder, names] = images
        return self._images[folder, names]

    def _folder(self, split: str) -> Path:
        source = "train" if self._draws and split == "validation" else split
        found = self._read(split)
        named = self.images.get(source) if isinstance(self.images, Mapping) else self.images
        folder = Path(named).expanduser() if named else found.images
        if folder is None:
            raise QuestionError(
                f"data.images is missing: name the folder of the images of"
                f" {self._places[split].questions}"
            )
        below = folder / found.subset
        return below if below.is_dir() else folder


def draw_images(questions: Sequence[Question], share: float, file: Path) -> set[str]:
    """Draw a share of the images, at least one: the same whenever their names are.

    QuestionError: the questions are about a single image.
    """
    images = {question.image for question in questions}
    ranked = sorted(images, key=lambda name: hashlib.sha256(name.encode()).digest())
    if len(ranked) < 2:
        raise QuestionError(
            f"{file} is about one image, so none can be held out; name data.validation, or set"
            " data.held_out=0 and trainer.best=last"
        )
    return set(ranked[: min(max(1, round(share * len(ranked))), len(ranked) - 1)])
