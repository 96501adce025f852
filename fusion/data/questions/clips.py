"""What a data set of questions gives to a model.

Shapes: L words or word pieces, D their width, S pixels, K answers.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fusion.data.datasets.dataset import ChangedClips, ClipSet
from fusion.data.questions.answers import score_row
from fusion.data.questions.images import Images
from fusion.data.questions.question import Question
from fusion.interfaces import TextEncoder

KEPT = 20_000  # encoded texts that stay in memory


class QuestionClips(ClipSet):
    """The questions of one split.

    An item has ``id``, ``image`` (1, 3, S, S) uint8 RGB, or (0, 3, S, S) if the image cannot be
    read, and ``targets``: ``scores`` (K,) float32, how right each answer of the vocabulary is, all
    0 if no answer is known or in the vocabulary. With a text encoder it has ``text`` (L, D).

    Neighbouring questions about one image stay together in training: a batch of them needs the
    features of an image once.

    Args:
        questions: the questions.
        images: their images.
        text_encoder: encodes the questions, equal ones once; None: items have no text.
        answers: the K answers.
    """

    def __init__(
        self,
        questions: Sequence[Question],
        images: Images,
        text_encoder: TextEncoder | None,
        answers: Sequence[str],
    ) -> None:
        self.questions, self.images, self.text_encoder = questions, images, text_encoder
        self.answers, self.folder = answers, images.folder
        self.sizes = [len(list(same)) for _, same in itertools.groupby(q.image for q in questions)]
        self.group = self.sizes
        self._index = {answer: place for place, answer in enumerate(answers)}
        self._texts: dict[str, Tensor] = {}
        self._keeps = not hasattr(text_encoder, "prepare")  # such an encoder keeps them itself
        if not self._keeps:
            text_encoder.prepare(question.text for question in questions)  # type: ignore[union-attr]

    def __len__(self) -> int:
        """Number of questions."""
        return len(self.questions)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read a question, its image and its answers."""
        question = self.questions[index]
        item: dict[str, Any] = {"id": question.id}
        if self.text_encoder is not None:
            item["text"] = self._encode(self.text_encoder, question.text)
        scores = score_row(question.answers, self._index)
        return item | {"image": self.images.read(question.image), "targets": {"scores": scores}}

    def _encode(self, encoder: TextEncoder, text: str) -> Tensor:
        if not self._keeps:
            return encoder(text)
        if (found := self._texts.get(text)) is None:
            found = encoder(text)
            if len(self._texts) < KEPT:
                self._texts[text] = found
        return found


class FirstSimple(ChangedClips):
    """Training clips: in the first epochs only the simple ones, later all.

    An epoch always has as many items as there are clips, so in the first ones the simple clips are
    repeated. Before the first :meth:`begin_epoch` there are all, as for an evaluation.

    Args:
        clips: the clips that are not simple.
        simple: those that are.
        epochs: how many epochs have these alone.

    Attributes:
        questions: of all clips.
    """

    def __init__(self, clips: QuestionClips, simple: QuestionClips, epochs: int) -> None:
        super().__init__(clips)
        self.questions = [*clips.questions, *simple.questions]
        self.group = [*clips.sizes, *simple.sizes]
        self.simple, self.epochs, self._is_first = simple, epochs, False

    def __len__(self) -> int:
        """Number of items of an epoch."""
        return len(self.questions)

    def begin_epoch(self, number: int) -> None:
        """Choose the clips of an epoch."""
        super().begin_epoch(number)
        self._is_first = number < self.epochs

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read an item of this epoch."""
        if not 0 <= index < len(self):
            raise IndexError(index)  # which ends a loop over the items
        if not self._is_first and index < len(self.clips):
            item: dict[str, Any] = self.clips[index]
            return item
        return self.simple[(index - len(self.clips)) % len(self.simple)]
