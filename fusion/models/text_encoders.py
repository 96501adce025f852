"""Text encoders: from a sentence to text features.

As in the published pipelines (MIL-NCE, AVLnet, MCN, EAO) a sentence becomes the sequence of the
vectors of its first ``max_words`` known words. Transformers are in
:mod:`fusion.models.language_models`.
"""

from __future__ import annotations

import functools
import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import safetensors.torch
import torch
from torch import Tensor

from fusion.data.untrusted.word_vectors import read_word_vectors
from fusion.words import words_of

WORD_VECTOR_WIDTH = 64
VECTORS, VOCABULARY = "word_vectors.safetensors", "vocabulary.txt"


class WordVectors:
    """A fixed (D,) vector for each word; a sentence keeps its first ``max_words`` known words.

    With ``fold_case`` upper and lower case are the same word, and so are composed and decomposed
    letters. The vocabulary must then be folded, as that of :meth:`train` is.
    """

    learns = True  # from the training captions; a checkpoint has its own vectors
    fold_case = False

    def __init__(
        self,
        vocabulary: Sequence[str],
        vectors: Tensor,
        max_words: int = 20,
        fold_case: bool = False,
    ) -> None:
        if len(vocabulary) != len(vectors):
            raise ValueError(f"{len(vocabulary)} words cannot have {len(vectors)} vectors")
        self.index: Mapping[str, int] = {word: i for i, word in enumerate(vocabulary)}
        self.vectors, self.max_words, self.fold_case = vectors, max_words, fold_case

    def __call__(self, sentence: str) -> Tensor:
        """Look up the known words of a sentence: (L, D), L = 0 if none is known."""
        known = [self.index[word] for word in self._words(sentence) if word in self.index]
        return self.vectors[torch.tensor(known[: self.max_words], dtype=torch.int64)]

    def unknown_words(self, sentence: str) -> list[str]:
        """Return the words of a sentence that have no vector."""
        return [word for word in self._words(sentence) if word not in self.index]

    def _words(self, sentence: str) -> list[str]:
        return words_of(_fold(sentence) if self.fold_case else sentence)

    @classmethod
    def train(
        cls,
        sentences: Iterable[str],
        dim: int = WORD_VECTOR_WIDTH,
        epochs: int = 10,
        max_words: int = 20,
        seed: int = 0,
    ) -> WordVectors:
        """Learn vectors from sentences with word2vec (Mikolov et al., arXiv:1310.4546).

        From a few thousand sentences word2vec learns nearly equal vectors (on the built-in corpus
        the cosine of red and blue is 0.99). So they are whitened: mean 0, covariance 1 over the
        vocabulary (compare arXiv:1702.01417). The result depends only on sentences and seed. Case
        is folded.

        Args:
            sentences: the training captions.
            dim: D.
            epochs: passes over the sentences.
            max_words: later words of a sentence are cut off.
            seed: of the initial vectors and the sampling.
        """
        from gensim.models import Word2Vec  # slow to import

        corpus = [words for sentence in sentences if (words := words_of(_fold(sentence)))]
        if not corpus:
            raise ValueError("no training caption holds a word, so there are none to learn")
        model = Word2Vec(
            corpus, vector_size=dim, epochs=epochs, min_count=1, workers=1, seed=seed % 2**32
        )
        vectors = torch.from_numpy(model.wv.vectors.copy())
        u, s, vt = torch.linalg.svd(vectors - vectors.mean(dim=0), full_matrices=False)
        scale = (s > 1e-5 * s[0]) * len(vectors) ** 0.5  # V - 1 dimensions at most have any extent
        return cls(model.wv.index_to_key, (u * scale) @ vt, max_words, fold_case=True)

    def save(self, folder: Path) -> None:
        """Write the vectors into a checkpoint's folder."""
        metadata = {"max_words": str(self.max_words), "fold_case": str(self.fold_case)}
        safetensors.torch.save_file({"vectors": self.vectors}, folder / VECTORS, metadata)
        (folder / VOCABULARY).write_text("\n".join(self.index) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, moved: None = None) -> WordVectors:
        """Read the vectors of a checkpoint; raise ValueError if a file is missing or damaged."""
        try:
            with safetensors.safe_open(folder / VECTORS, "pt") as file:
                vectors = file.get_tensor("vectors")
                metadata = file.metadata()
                max_words = int(metadata["max_words"])
            vocabulary = (folder / VOCABULARY).read_text(encoding="utf-8").split("\n")[:-1]
        except (OSError, KeyError, safetensors.SafetensorError) as error:
            raise ValueError(f"{folder} has no word vectors that can be read: {error}") from None
        # Older versions did not fold case and did not say so.
        return cls(vocabulary, vectors, max_words, metadata.get("fold_case") == "True")


class FromFile:
    """A text encoder of others: a checkpoint, or a pickle, has its arguments and no copy of it."""

    learns = False
    place: ClassVar[str] = "path"  # the argument that says where it is
    has_digest: ClassVar[bool] = False  # a checkpoint knows whether it is still the same
    reference: ClassVar[str]  # file with the arguments in a checkpoint's folder
    arguments: Mapping[str, Any]  # ready for JSON

    @property
    def path(self) -> str:
        """The file, folder or name that it was opened from."""
        return self.arguments[self.place]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the arguments: a data loading process opens the file itself."""
        return functools.partial(type(self), **self.arguments), ()

    def save(self, folder: Path) -> None:
        """Write the arguments into a checkpoint's folder."""
        (folder / self.reference).write_text(json.dumps(self.arguments), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, moved: str | Path | None = None) -> Self:
        """Open what a checkpoint was trained with, at the place ``moved`` if it is given.

        ValueError: it is not there, or is not what the checkpoint was trained with.
        """
        try:
            arguments = json.loads((folder / cls.reference).read_text(encoding="utf-8"))
            return cls(**arguments | ({cls.place: str(moved)} if moved else {}))
        except FileNotFoundError:
            raise ValueError(
                f"{folder} has no {cls.reference}, which names the text encoder that it was"
                f" trained with; add text_encoder.{cls.place}=PATH"
            ) from None
        except (TypeError, ValueError) as error:
            raise ValueError(f"the text encoder of {folder} cannot be opened: {error}") from None


class WordVectorFile(FromFile, WordVectors):
    """Fixed vectors from a file that others have made, such as GoogleNews' word2vec.

    The original file costs each process its whole size (3.6 GB). Converted by fusion convert it
    is mapped into memory: all processes share it, and only the vectors that are used are read.

    Args:
        path: see :func:`fusion.data.untrusted.word_vectors.read_word_vectors`.
        limit: read only the first so many words: in published files the most frequent. Ignored for
            converted files, which are never read as a whole.
        max_words: later words of a sentence are cut off.

    Raises:
        ValueError: there is no such file, or it is damaged.
    """

    reference = "word_vectors.json"

    def __init__(
        self, path: str | Path | None = None, limit: int | None = None, max_words: int = 20
    ) -> None:
        if path is None:
            raise ValueError("where are the word vectors? add text_encoder.path=FILE")
        path, self.max_words = Path(path).expanduser().resolve(), max_words
        if not path.exists():
            raise ValueError(
                f"text_encoder.path: there is no {path}; add text_encoder.path=FILE"
                " (GoogleNews-vectors-negative300.bin is at code.google.com/archive/p/word2vec)"
            )
        self.arguments = {"path": str(path), "limit": limit, "max_words": max_words}
        self.index, self.vectors = read_word_vectors(path, limit)


def _fold(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()
