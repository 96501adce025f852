"""Text encoders: from a sentence to text features.

As in the published pipelines (MIL-NCE, AVLnet, MCN, EAO) a sentence becomes the sequence of the
vectors of its first ``max_words`` known words. Transformers are in
:mod:`fusion.models.text.language_models`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import safetensors.torch
import torch
from torch import Tensor

from fusion.data.untrusted.word_vectors import read_word_vectors
from fusion.models.cutting import Cutter, open_cutter, save_cutter
from fusion.words import PUBLISHED, UNICODE, Found

WORD_VECTOR_WIDTH = 64
VECTORS, VOCABULARY = "word_vectors.safetensors", "vocabulary.txt"


class WordVectors:
    """A fixed (D,) vector for each word; a sentence keeps its first ``max_words`` known words.

    Args:
        vocabulary: the words, in the order of the vectors.
        vectors: (V, D).
        max_words: later words of a sentence are cut off.
        fold_case: with ``tokenizer`` "published": upper and lower case are the same word, and so
            are composed and decomposed letters. The vocabulary must then be folded.
        tokenizer: what cuts a sentence, a name of :func:`.cutting.open_cutter` or the cutter.
    """

    learns = True  # from the training captions; a checkpoint has its own vectors

    def __init__(
        self,
        vocabulary: Sequence[str],
        vectors: Tensor,
        max_words: int = 20,
        fold_case: bool = False,
        tokenizer: str | Cutter = PUBLISHED,
    ) -> None:
        if len(vocabulary) != len(vectors):
            raise ValueError(f"{len(vocabulary)} words cannot have {len(vectors)} vectors")
        self.index: Mapping[str, int] = {word: i for i, word in enumerate(vocabulary)}
        self.vectors, self.max_words, self.fold_case = vectors, max_words, fold_case
        if isinstance(tokenizer, str):
            tokenizer = open_cutter(tokenizer, fold_case)
        self.cutter: Cutter = tokenizer

    def __call__(self, sentence: str) -> Tensor:
        """Look up the known words of a sentence: (L, D), L = 0 if none is known."""
        known = [number for _, number in self.look_up(sentence) if number is not None]
        return self.vectors[torch.tensor(known[: self.max_words], dtype=torch.int64)]

    def look_up(self, sentence: str) -> Found:
        """Cut a sentence into words, and find the numbers of their vectors; None: it has none."""
        return self.cutter.look_up(sentence, self.index)

    def unknown_words(self, sentence: str) -> list[str]:
        """Return the words of a sentence that have no vector."""
        return [word for word, number in self.look_up(sentence) if number is None]

    @classmethod
    def train(
        cls,
        sentences: Iterable[str],
        dim: int = WORD_VECTOR_WIDTH,
        epochs: int = 10,
        max_words: int = 20,
        seed: int = 0,
        tokenizer: str = UNICODE,
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
            tokenizer: what cuts the sentences, see :func:`.cutting.open_cutter`. In scripts
                without spaces words are single characters.
        """
        from gensim.models import Word2Vec  # slow to import

        cutter = open_cutter(tokenizer, folds=True)
        corpus = [words for sentence in sentences if (words := cutter.words(sentence))]
        if not corpus:
            raise ValueError("no training caption holds a word, so there are none to learn")
        model = Word2Vec(
            corpus, vector_size=dim, epochs=epochs, min_count=1, workers=1, seed=seed % 2**32
        )
        vectors = torch.from_numpy(model.wv.vectors.copy())
        u, s, vt = torch.linalg.svd(vectors - vectors.mean(dim=0), full_matrices=False)
        scale = (s > 1e-5 * s[0]) * len(vectors) ** 0.5  # V - 1 dimensions at most have any extent
        found = model.wv.index_to_key, (u * scale) @ vt
        return cls(*found, max_words, fold_case=True, tokenizer=cutter)

    def save(self, folder: Path) -> None:
        """Write the vectors into a checkpoint's folder."""
        metadata = {"max_words": str(self.max_words), "fold_case": str(self.fold_case)}
        metadata["tokenizer"] = self.cutter.name
        safetensors.torch.save_file({"vectors": self.vectors}, folder / VECTORS, metadata)
        (folder / VOCABULARY).write_text("\n".join(self.index) + "\n", encoding="utf-8")
        save_cutter(self.cutter, folder)

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
        # Older versions did not fold case, or cut by the published rule, and did not say so.
        folds, name = metadata.get("fold_case") == "True", metadata.get("tokenizer", PUBLISHED)
        cutter = open_cutter(name, folds, folder)
        return cls(vocabulary, vectors, max_words, folds, cutter)


class FromFile:
    """A text encoder of others: a checkpoint, or a pickle, has its arguments and no copy of it."""

    learns = False
    place: ClassVar[str] = "path"  # the argument that says where it is
    has_digest: ClassVar[bool] = False  # a checkpoint knows whether it is still the same
    reference: ClassVar[str]  # file with the arguments in a checkpoint's folder
    older: ClassVar[Mapping[str, Any]] = {}  # arguments that older checkpoints do not name
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
            moves = {cls.place: str(moved)} if moved else {}
            return cls(**{**cls.older, **arguments, **moves})
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
        tokenizer: what cuts a sentence, see :func:`.cutting.open_cutter`.

    Raises:
        ValueError: there is no such file, or it is damaged.
    """

    reference = "word_vectors.json"
    older: ClassVar[Mapping[str, Any]] = {"tokenizer": PUBLISHED}

    def __init__(
        self,
        path: str | Path | None = None,
        limit: int | None = None,
        max_words: int = 20,
        tokenizer: str = UNICODE,
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
        self.arguments["tokenizer"] = tokenizer
        self.cutter = open_cutter(tokenizer)
        self.index, self.vectors = read_word_vectors(path, limit)

    @classmethod
    def tokenizer_of(cls, folder: Path) -> str:
        """Return what cut the sentences of a checkpoint."""
        try:
            arguments = json.loads((folder / cls.reference).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            arguments = {}
        return str({**cls.older, **arguments}["tokenizer"])
