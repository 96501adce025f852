"""How the texts of word vectors are cut: by a rule of :mod:`fusion.words`, or by a tokenizer."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from fusion.models.text.language_model_files import find_language_model, open_pretrained
from fusion.words import (
    PUBLISHED,
    UNICODE,
    Found,
    fold,
    look_up,
    published_words,
    words_of,
)

OWN = "tokenizer"  # in the folder of a checkpoint, a tokenizer of transformers


class Cutter(Protocol):
    """Cuts texts into words."""

    name: str  # the setting ``text_encoder.tokenizer``

    def words(self, text: str) -> list[str]:
        """Cut a text from which a vocabulary is learnt."""

    def look_up(self, text: str, vocabulary: Mapping[str, int]) -> Found:
        """Cut a text, and find its words in a vocabulary."""


class Published:
    """The rule of the published code; with ``folds`` case and composed letters do not matter."""

    name = PUBLISHED

    def __init__(self, folds: bool) -> None:
        self.folds = folds

    def words(self, text: str) -> list[str]:
        """See :class:`Cutter`."""
        folded = unicodedata.normalize("NFC", text).casefold() if self.folds else text
        return published_words(folded)

    def look_up(self, text: str, vocabulary: Mapping[str, int]) -> Found:
        """See :class:`Cutter`."""
        return [(word, vocabulary.get(word)) for word in self.words(text)]


class Unicode:
    """The rule for any language, see :mod:`fusion.words`; what is learnt is folded."""

    name = UNICODE

    def words(self, text: str) -> list[str]:
        """See :class:`Cutter`."""
        return [fold(word) for word in words_of(text)]

    def look_up(self, text: str, vocabulary: Mapping[str, int]) -> Found:
        """See :class:`Cutter`; the words are folded, so that each is counted once."""
        return [(fold(word), number) for word, number in look_up(text, vocabulary)]


class Pieces:
    """The pieces of words of a tokenizer of transformers, without its special tokens.

    A vocabulary may have a piece as the tokenizer writes it (``▁star``) or as it reads
    (``star``).
    """

    def __init__(self, name: str, folder: str | Path) -> None:
        from transformers import AutoTokenizer  # slow to import

        self.name = name
        self.tokenizer: Any = open_pretrained(AutoTokenizer, folder)

    def words(self, text: str) -> list[str]:
        """See :class:`Cutter`."""
        special = {*self.tokenizer.all_special_tokens} - {self.tokenizer.unk_token}
        return [piece for piece in self.tokenizer.tokenize(text) if piece not in special]

    def look_up(self, text: str, vocabulary: Mapping[str, int]) -> Found:
        """See :class:`Cutter`."""
        return [(piece, self._find(piece, vocabulary)) for piece in self.words(text)]

    def _find(self, piece: str, vocabulary: Mapping[str, int]) -> int | None:
        if piece == self.tokenizer.unk_token:
            return None
        if (number := vocabulary.get(piece)) is not None:
            return number
        return vocabulary.get(self.tokenizer.convert_tokens_to_string([piece]).strip())


def open_cutter(name: str, folds: bool = False, folder: Path | None = None) -> Cutter:
    """Open what the setting ``text_encoder.tokenizer`` names.

    Args:
        name: ``unicode``, ``published``, or a tokenizer of transformers: a folder, or a name on
            the Hugging Face hub.
        folds: whether ``published`` folds case.
        folder: of a checkpoint, whose copy of the tokenizer is opened.

    Raises:
        ValueError: there is no such tokenizer.
    """
    if name == PUBLISHED:
        return Published(folds)
    if name == UNICODE:
        return Unicode()
    if folder is not None and (folder / OWN).is_dir():
        return Pieces(name, folder / OWN)
    try:
        return Pieces(name, find_language_model(name))
    except ValueError as error:
        raise ValueError(
            f"text_encoder.tokenizer={name} is neither {UNICODE} nor {PUBLISHED}, nor a tokenizer"
            f" of transformers: {error}"
        ) from None


def save_cutter(cutter: Cutter, folder: Path) -> None:
    """Copy a tokenizer of transformers into the folder of a checkpoint."""
    if isinstance(cutter, Pieces):
        cutter.tokenizer.save_pretrained(folder / OWN)
