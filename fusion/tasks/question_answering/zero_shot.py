"""Questions about pictures for a model that was trained for retrieval: nothing is trained for them.

The question and each possible answer make a text, and the text nearest to the picture wins.

Shapes: N questions, K answers, E embedding width, S side of an image in pixels.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from fusion.checkpoint import read_config, trust_of
from fusion.config import ConfigError
from fusion.data.features.problems import name_some, warn
from fusion.data.media.film import Film, Piece
from fusion.data.media.pictures import Sampling
from fusion.data.media.sound import Hearing
from fusion.data.questions import QUESTION_SETS
from fusion.data.questions.clips import QuestionClips
from fusion.evaluation.answers import Answered
from fusion.evaluation.answers import Settings as AnswerSettings
from fusion.inference.items import Inputs
from fusion.inference.loading import find_recipe
from fusion.inference.model import Model
from fusion.modalities import spell
from fusion.parts import is_own
from fusion.tasks.localisation.task import OfTrainedRetrieval
from fusion.tasks.question_answering.result import answer_scores, describe_answers
from fusion.tasks.question_answering.sections import count_training, report_sections
from fusion.tasks.task import Evaluation
from fusion.words import number_of

TEXT, PICTURE = "text", "video"
QUESTION, ANSWER = "{question}", "{answer}"
NEVER = -1e4  # score of an answer without a known word
TEXTS = 20_000  # that are embedded together, about
PICTURES = 16  # the same


@dataclasses.dataclass(frozen=True)
class Settings(AnswerSettings):
    """The ``evaluation`` section: that of question answering, and how a text is made.

    Attributes:
        prompt: the text of a question and an answer, with ``{question}`` and ``{answer}``.
        scale: what similarities are multiplied by before they become probabilities, which only the
            report shows; the order of answers does not depend on it.

    Raises:
        ConfigError: the prompt has no answer.
    """

    prompt: str = f"{QUESTION} {ANSWER}"
    scale: float = 20.0

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        if ANSWER not in self.prompt:
            raise ConfigError(
                f"evaluation.prompt must have {ANSWER}, such as '{QUESTION} {ANSWER}'; got"
                f" {self.prompt!r}"
            )


class ZeroShotAnswers(OfTrainedRetrieval):
    """Answer questions about pictures by retrieval, see :class:`fusion.tasks.task.Task`."""

    settings_class, test_config = Settings, "vqa/zero_shot"

    def open_data(self) -> None:
        """Open the questions; those about films have no single picture."""
        name = self.config["data"].get("name")
        pictured = [known for known in QUESTION_SETS if known != "film_questions"]
        if name in pictured or is_own(name):  # what is built in would be drawn for nothing
            super().open_data()
        if not hasattr(getattr(self, "source", None), "image_size"):
            raise ConfigError(
                f"data.name: {name!r} has no questions about pictures; take {', '.join(pictured)}"
            )

    def open_encoders(
        self, checkpoint: Path | None, own_first: bool = False
    ) -> Mapping[str, str | Path]:
        """Read the text encoder of a checkpoint, and how its features were made."""
        assert checkpoint is not None  # nothing is trained
        trained = read_config(checkpoint, trust_of(self.config))
        self._recipe = find_recipe(checkpoint, trained)
        return super().open_encoders(checkpoint, own_first)

    def recipe(self) -> Mapping[str, Any] | None:
        """Pictures get the features of the checkpoint, whatever they are."""
        return None

    def clips(self, split: str) -> QuestionClips:
        """Read a split, without features of its questions."""
        source: Any = self.source
        clips: QuestionClips = source.clips(split, None)
        return clips

    def evaluate(
        self, model: nn.Module, clips: Any, split: str, accelerator: Accelerator
    ) -> Evaluation | None:
        """Answer the questions of a split."""
        source: Any = self.source
        scores = self._score(model, clips, accelerator)
        if not accelerator.is_main_process:
            return None
        answered = Answered(tuple(clips.questions), list(clips.answers), scores)
        result = describe_answers(source, split, answered)
        number = self.test_settings.questions_in_report
        balance = count_training(source, answered.answers)
        sections = report_sections(model, clips, answered, number, balance)
        return Evaluation(result, answer_scores(answered), sections=sections)

    def _score(self, model: nn.Module, clips: QuestionClips, accelerator: Accelerator) -> Tensor:
        """Compare each question's picture with the texts of all answers: (N, K)."""
        inner: Any = getattr(model, "module", model)
        lacking = {*map(spell, ([TEXT], [PICTURE]))} - {*inner.combinations}
        if lacking:
            raise ConfigError(
                f"the model embeds {', '.join(inner.combinations)}, and comparing texts with"
                f" pictures needs t and v; it lacks {', '.join(sorted(lacking))}"
            )
        about = (self.text_encoder, self.config, self._recipe, accelerator.device)
        embedder = Model(inner, *about)
        seen = embed_pictures(embedder, pictures_of(clips), accelerator.is_local_main_process)
        # Texts that differ in unknown words alone are equal, and rounding would choose.
        known = torch.tensor([len(self.text_encoder(answer)) > 0 for answer in clips.answers])
        if not known.all():
            names = [a for a, flag in zip(clips.answers, known.tolist(), strict=True) if not flag]
            warn(
                f"the model knows no word of {len(names)} of"
                f" {number_of(len(known), 'answer')} ({name_some(names)}), and never gives them"
            )
        lowest = torch.where(known, 0.0, NEVER)
        scores = [lowest] * len(clips.questions)
        asked: dict[str, list[int]] = {}
        for place, question in enumerate(clips.questions):
            asked.setdefault(question.text, []).append(place)
        hidden = not accelerator.is_local_main_process
        bar = tqdm(total=len(asked), desc="asking", unit="text", leave=False, disable=hidden)
        for texts in _in_parts(list(asked), max(1, TEXTS // len(clips.answers))):
            made = [self._text(text, answer) for text in texts for answer in clips.answers]
            where = (accelerator, self.test_settings.batch_size)
            _, vectors = self.embed_texts(model, list(dict.fromkeys(made)), *where)
            for number, text in enumerate(texts):
                own = made[number * len(clips.answers) :][: len(clips.answers)]
                rows = torch.stack([vectors[one] for one in own])  # (K, E)
                for place in asked[text]:
                    if (picture := seen.get(clips.questions[place].image)) is not None:
                        found = embedder.similarity(picture, rows.float())
                        scores[place] = lowest + found * self.test_settings.scale
            bar.update(len(texts))
        bar.close()
        return torch.stack(scores)

    def _text(self, question: str, answer: str) -> str:
        prompt: str = self.test_settings.prompt
        return prompt.replace(QUESTION, question).replace(ANSWER, answer)


class Here:
    """Reads media files in this process, and leaves nothing in the cache."""

    def pieces(
        self, path: Path, samplings: Mapping[str, Sampling | Hearing], audio: bool
    ) -> Iterator[Piece]:
        """Do what :meth:`.Film.pieces` does."""
        yield from Film(path, samplings, audio).pieces()


def pictures_of(clips: QuestionClips) -> dict[str, np.ndarray[Any, np.dtype[np.uint8]]]:
    """Return the pictures of questions by name, (S, S, 3) RGB; those that can be read."""
    found = {}
    for name in dict.fromkeys(question.image for question in clips.questions):
        if len(pixels := clips.images.read(name)):
            found[name] = pixels[0].movedim(0, -1).numpy()
    return found


def embed_pictures(model: Any, pictures: Mapping[str, Any], shows: bool) -> dict[str, Tensor]:
    """Embed pictures, each as a film of one second: (E,) by name.

    Args:
        model: a :class:`fusion.Model`.
        pictures: (S, S, 3) uint8 RGB by name.
        shows: a progress bar.
    """
    found: dict[str, Tensor] = {}
    bar = tqdm(total=len(pictures), desc="pictures", unit="picture", leave=False, disable=not shows)
    for names in _in_parts(list(pictures), PICTURES):
        with Inputs(model.modalities, (PICTURE,)) as inputs, contextlib.ExitStack() as stack:
            given = [{PICTURE: (pictures[name][None], 1.0)} for name in names]
            files = [item.parts[PICTURE] for item in inputs.items(given)[0]]
            for file in files:
                stack.enter_context(model.maker.reading(file, Here()))
            vectors = model.encode([{PICTURE: file} for file in files], spell([PICTURE]))
        found |= dict(zip(names, vectors, strict=True))
        bar.update(len(names))
    bar.close()
    return found


def _in_parts(values: Sequence[str], size: int) -> Iterable[Sequence[str]]:
    return (values[first : first + size] for first in range(0, len(values), size))
