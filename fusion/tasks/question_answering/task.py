"""Visual question answering: choose an answer from what is seen, heard and asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import nn

from fusion.builders import check_config, learns
from fusion.checkpoint import save_text_encoder, trust_of
from fusion.config import check, merge
from fusion.data.features.problems import warn
from fusion.data.questions import QUESTION_SETS
from fusion.data.questions.clips import QuestionClips
from fusion.data.untrusted.reading import read_json
from fusion.evaluation.answers import METRICS, Answered, answer_table
from fusion.evaluation.answers import Settings as EvaluationSettings
from fusion.evaluation.embed import embed
from fusion.files import write_atomically
from fusion.interfaces import Loss
from fusion.models.answering import ANSWERS, AnswerModel
from fusion.models.image_encoders import TimmImage
from fusion.models.text.trained import TextTokens, TrainedText
from fusion.tasks.choosing import Choosing
from fusion.tasks.fit import fit_config
from fusion.tasks.question_answering.result import answer_scores, describe_answers
from fusion.tasks.question_answering.sections import count_training, report_sections
from fusion.tasks.question_answering.start import fill_part_rates, start_images
from fusion.tasks.task import Evaluation, check_widths
from fusion.tasks.text_encoder import find_text_encoder
from fusion.tasks.vocabulary import count_words

VOCABULARY = "answers.json"  # of a checkpoint: its answers, in the order of the scores


class QuestionAnswering(Choosing):
    """Answer questions, see :class:`fusion.tasks.task.Task`."""

    name, loss = "question_answering", "answers"
    model = AnswerModel, "answering"
    metrics = METRICS
    items = "questions", "questions"
    sets = QUESTION_SETS

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config, self.builders = config, check_config(config)
        check("evaluation", config["evaluation"], EvaluationSettings)
        self.settings = EvaluationSettings(**config["evaluation"])
        self.text_encoder: Any = None
        self.answers: list[str] = []

    def build(self) -> tuple[nn.Module, Loss]:
        """Build the model, with published weights where the config names them, and the loss."""
        model: nn.Module = self.builders["model"]()
        for part in model.modules():
            if isinstance(part, TrainedText) and isinstance(self.text_encoder, TextTokens):
                self.text_encoder.start(part)
            if isinstance(part, TimmImage) and self.answers:
                start_images(part)
        return model, self.builders["loss"](modalities=model.modalities)

    def open_encoders(
        self, checkpoint: Path | None, own_first: bool = False
    ) -> Mapping[str, str | Path]:
        """Read text encoder and answers of a checkpoint, or make them of the training split."""
        spec = self.config["text_encoder"]
        if checkpoint is not None:
            if spec is not None:
                self.text_encoder = find_text_encoder(
                    checkpoint, spec, own_first, trust_of(self.config)
                )
            self.answers = read_answers(checkpoint)
        elif spec is not None:
            texts = self.source.texts("train") if learns(spec) else ()
            build = self.builders["text_encoder"]
            self.text_encoder = build(sentences=texts, seed=self.config["seed"])
        if checkpoint is None:
            self.answers = list(self.source.answers)
        return {} if spec is None else {"texts": getattr(self.text_encoder, "path", "own")}

    def save_encoders(self, folder: Path) -> None:
        """Write the text encoder and the answers."""
        if self.text_encoder is not None:
            save_text_encoder(folder, self.text_encoder)
        write_atomically(folder / VOCABULARY, json.dumps(self.answers, ensure_ascii=False))

    def fit(self, processes: int) -> Mapping[str, Any]:
        """Fill in widths, the number of answers and the learning rates of pre-trained parts.

        One line says which answers are frequent.
        """
        if (balance := count_training(self.source, self.answers)) is not None:
            warn(f"train: {balance.describe()}")
        config = fit_config(self.config, self.source, self._read, processes)
        config = {**config, "model": merge(config["model"], {"num_answers": len(self.answers)})}
        self.config = fill_part_rates(config)
        self.builders = check_config(self.config)
        return self.config

    def clips(self, split: str) -> QuestionClips:
        """Read a split and check that its features fit the model."""
        clips = self._read(split)
        check_widths(self.config["model"], clips[0])
        words = count_words((question.text for question in clips.questions), self.text_encoder)
        if words is not None:
            words.check(split, self.config["max_unknown"])
            if said := words.describe():
                warn(f"{split}: {said}")
        return clips

    def _read(self, split: str) -> QuestionClips:
        self.source.answers = self.answers  # those of a checkpoint, if there is one
        clips: QuestionClips = self.source.clips(split, self.text_encoder)
        return clips

    def measure(
        self, model: nn.Module, clips: QuestionClips, accelerator: Accelerator
    ) -> dict[str, float]:
        """Answer all questions, without intervals."""
        table = answer_table(self._answer(model, clips, accelerator), intervals=False)
        return {
            f"{row} {metric}": line[metric] for row, line in table.items() for metric in METRICS
        }

    def evaluate(
        self, model: nn.Module, clips: QuestionClips, split: str, accelerator: Accelerator
    ) -> Evaluation | None:
        """Answer the questions of a split, and show some with where the answer looked."""
        answered = self._answer(model, clips, accelerator)
        if not accelerator.is_main_process:
            return None
        result = describe_answers(self.source, split, answered)
        sections = report_sections(
            model,
            clips,
            answered,
            self.settings.questions_in_report,
            count_training(self.source, self.answers),
        )
        return Evaluation(result, answer_scores(answered), sections=sections)

    def _answer(self, model: nn.Module, clips: QuestionClips, accelerator: Accelerator) -> Answered:
        scores = embed(model, clips, accelerator, self.settings.batch_size).embeddings[ANSWERS]
        return Answered(tuple(clips.questions), list(self.answers), scores.float())


def read_answers(checkpoint: Path) -> list[str]:
    """Read the answers of a checkpoint, in the order of the scores.

    Raises:
        ValueError: the file is missing or damaged.
    """
    file = checkpoint / VOCABULARY
    try:
        answers = read_json(file)
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read ({error}); copy it from a backup") from None
    return [str(answer) for answer in answers]
