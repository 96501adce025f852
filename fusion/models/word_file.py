"""Word vectors from a file that others have made, such as GoogleNews' word2vec.

The original file costs each process its whole size (3.6 GB). Converted once, see
:func:`write_word_vectors`, it is mapped into memory, where all processes share it and only the
vectors that are used are ever read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from fusion.models.word_vectors import WordVectors

REFERENCE = "word_vectors.json"
MADE_BY = "python tools/convert.py {path} --out FILE.safetensors"


class WordVectorFile(WordVectors):
    """Fixed vectors of a file.

    Args:
        path: word2vec's binary format (``.bin``, also ``.gz``), its text format (``.txt``,
            ``.vec``), or what :func:`write_word_vectors` writes (``.safetensors``).
        limit: take only so many words, the first ones: in the published files the most frequent.
            Not for converted files, which are not read as a whole anyway.
        max_words: later words of a sentence are cut off.

    Raises:
        ValueError: there is no such file, or it is damaged.
    """

    learns = False

    def __init__(self, path: str | Path, limit: int | None = None, max_words: int = 20) -> None:
        self.path, self.limit, self.max_words = Path(path).expanduser(), limit, max_words
        if not self.path.exists():
            raise ValueError(
                f"text_encoder.path: there is no {self.path}; GoogleNews-vectors-negative300.bin is"
                " at code.google.com/archive/p/word2vec"
            )
        if self.path.suffix == ".safetensors":
            self.index, self.vectors = _open_mapped(self.path)
        else:
            self.index, self.vectors = _read_word2vec(self.path, limit)

    def __reduce__(self) -> tuple[Any, ...]:
        """Open the file anew in a process that loads data, instead of sending it there."""
        return WordVectorFile, (self.path, self.limit, self.max_words)

    @classmethod
    def train(  # type: ignore[override]
        cls,
        path: str | None = None,
        limit: int | None = None,
        max_words: int = 20,
        sentences: Iterable[str] = (),
        seed: int = 0,
    ) -> WordVectorFile:
        """Open the file; nothing is learnt.

        Args:
            path: see the class.
            limit: see the class.
            max_words: see the class.
            sentences: not used.
            seed: not used.

        Raises:
            ValueError: see the class.
        """
        if path is None:
            raise ValueError("where are the word vectors? add text_encoder.path=FILE")
        return cls(path, limit, max_words)

    def save(self, folder: Path) -> None:
        """Write into a checkpoint's folder where the file is; it is not copied."""
        facts = {"path": str(self.path.resolve()), "limit": self.limit, "max_words": self.max_words}
        (folder / REFERENCE).write_text(json.dumps(facts), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> WordVectorFile:
        """Open the file that a checkpoint was trained with.

        Raises:
            ValueError: the checkpoint names none, or it is not there any more.
        """
        try:
            facts = json.loads((folder / REFERENCE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ValueError(
                f"{folder} has no copy of the word vectors that it was trained with; add"
                " text_encoder.path=FILE"
            ) from None
        if not Path(facts["path"]).exists():
            raise ValueError(
                f"the word vectors of {folder} are not at {facts['path']} any more; add"
                " text_encoder.path=FILE"
            )
        return cls(**facts)


class MappedWords(Mapping[str, int]):
    """Numbers of words, found by halving in a sorted list that stays on the disk.

    Args:
        letters: all words in UTF-8, end to end, sorted by bytes: uint8.
        ends: where each word ends in ``letters``: (V,) int64.
    """

    def __init__(self, letters: NDArray[Any], ends: NDArray[Any]) -> None:
        self.letters, self.ends = letters, ends
        self._known: dict[str, int | None] = {}  # those that were asked for

    def __len__(self) -> int:
        """Number of words."""
        return len(self.ends)

    def __iter__(self) -> Iterator[str]:
        """Give all words."""
        return (self._word(i).decode() for i in range(len(self)))

    def __contains__(self, word: object) -> bool:
        """Say whether a word is there."""
        return isinstance(word, str) and self._find(word) is not None

    def __getitem__(self, word: str) -> int:
        """Give the number of a word."""
        if (number := self._find(word)) is None:
            raise KeyError(word)
        return number

    def _find(self, word: str) -> int | None:
        if word not in self._known:
            wanted, low, high = word.encode(), 0, len(self)
            while low < high:
                middle = (low + high) // 2
                low, high = (middle + 1, high) if self._word(middle) < wanted else (low, middle)
            found = low < len(self) and self._word(low) == wanted
            self._known[word] = low if found else None
        return self._known[word]

    def _word(self, number: int) -> bytes:
        start = int(self.ends[number - 1]) if number else 0
        return self.letters[start : int(self.ends[number])].tobytes()


def write_word_vectors(source: Path, target: Path, limit: int | None = None) -> tuple[int, int]:
    """Convert word2vec's format to one that is mapped into memory.

    Args:
        source: see :class:`WordVectorFile`.
        target: the file to write; not atomic.
        limit: see :class:`WordVectorFile`.

    Returns:
        How many words there are, and how wide their vectors.

    Raises:
        ValueError: the source is no such file.
    """
    index, vectors = _read_word2vec(source, limit)
    words = sorted((word.encode(), number) for word, number in index.items())
    order = torch.tensor([number for _, number in words])
    letters = np.frombuffer(b"".join(word for word, _ in words), np.uint8)
    ends = np.cumsum([len(word) for word, _ in words], dtype=np.int64)
    tensors = {"vectors": vectors[order].numpy(), "letters": letters, "ends": ends}
    safetensors.numpy.save_file(tensors, target)
    return len(words), vectors.shape[1]


def _read_word2vec(path: Path, limit: int | None) -> tuple[dict[str, int], Tensor]:
    from gensim.models import KeyedVectors  # a second to import, so only where it is used

    binary = path.suffix in (".bin", ".gz")
    try:
        read = KeyedVectors.load_word2vec_format(str(path), binary=binary, limit=limit)
    except (EOFError, ValueError, UnicodeDecodeError, OSError) as error:
        raise ValueError(
            f"{path} is not in word2vec's format, or is damaged ({error}); download it again"
        ) from None
    return read.key_to_index, torch.from_numpy(read.vectors)


def _open_mapped(path: Path) -> tuple[MappedWords, Tensor]:
    try:
        tensors = safetensors.torch.load_file(path)  # mapped, not read
        words = MappedWords(tensors["letters"].numpy(), tensors["ends"].numpy())
        vectors = tensors["vectors"]
    except (SafetensorError, OSError, KeyError) as error:
        raise ValueError(
            f"{path} holds no word vectors ({error}); make it by {MADE_BY.format(path='FILE.bin')}"
        ) from None
    return words, vectors
