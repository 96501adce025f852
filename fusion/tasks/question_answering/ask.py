"""A trained model that answers questions about single pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusion.checkpoint import Trust, find_checkpoint, load_model, load_text_encoder, read_config
from fusion.config import ConfigError
from fusion.data.datasets.dataset import collate
from fusion.data.questions.decode import read_image, scale_picture
from fusion.models.answering import ANSWERS
from fusion.tasks.question_answering.sections import best_answers, look_at
from fusion.tasks.question_answering.task import read_answers


class Reply(NamedTuple):
    """The best answers with their probabilities, and the picture as the model saw it.

    ``image`` is (S, S, 3) uint8; ``look`` is where the question looked, (h, w), 1 at most; None if
    that is not known.
    """

    best: list[tuple[str, float]]
    image: NDArray[np.uint8]
    look: NDArray[np.float32] | None


class Asker:
    """Answers questions with the model of a run or checkpoint.

    Raises:
        ValueError: there is none, or it does not answer questions about pictures.
    """

    def __init__(self, run: str | Path, trust: Trust = False) -> None:
        config, self.run = read_config(run, trust), run
        if config["task"] != "question_answering":
            raise ConfigError(
                f"{run} was trained for {config['task']}; train a model that answers questions by:"
                " fusion train vqa"
            )
        if not (config["model"].get("modalities") or {}).get("image"):
            raise ConfigError(f"{run} reads no pictures, so it cannot be asked about one")
        self.image_size = int(config["data"].get("image_size", 224))
        self.encoder = load_text_encoder(run, trust)
        self.answers = read_answers(find_checkpoint(run))
        self.model: Any = load_model(run, trust=trust)

    def __call__(self, image: str | Path, question: str, number: int = 5) -> Reply:
        """Answer a question about an image file.

        Raises:
            ValueError: the image cannot be read, or the model knows no word of the question.
        """
        if not question.strip():
            raise ConfigError('the question is empty; ask one, such as "what is it?"')
        return self._reply(read_image(image, self.image_size), question, number)

    def answer(self, picture: NDArray[np.uint8], question: str, number: int = 5) -> Reply:
        """Answer a question about an (H, W, 3) RGB picture, as if it were read from a file.

        Raises:
            ValueError: the model knows no word of the question.
        """
        pixels = torch.from_numpy(scale_picture(picture, self.image_size))
        return self._reply(pixels, question, number)

    def _reply(self, pixels: Tensor, question: str, number: int) -> Reply:
        clip: dict[str, Any] = {"id": question}
        if self.encoder is not None:
            clip["text"] = self.encoder(question)
            if not len(clip["text"]):
                raise ConfigError(f"{self.run} knows no word of {question!r}; ask in other words")
        clip["image"] = pixels[None]
        with torch.no_grad():
            scores = self.model(collate([clip]).to("cpu").inputs)[ANSWERS][0].float()
        seen = pixels.movedim(0, -1).numpy()
        return Reply(best_answers(self.answers, scores, number), seen, look_at(self.model, clip))
