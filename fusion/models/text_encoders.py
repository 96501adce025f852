"""Text encoders: from a sentence to text features.

As in the published pipelines (MIL-NCE, AVLnet, MCN, EAO) a sentence becomes the sequence of the
vectors of its first ``max_words`` known words; or, as in EAO's CLIP variant, the text tokens of a
frozen CLIP (Radford et al., arXiv:2103.00020).
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
from fusion.words import words_of

VECTORS, VOCABULARY = "word_vectors.safetensors", "vocabulary.txt"
PUBLISHED_CLIP = "openai/clip-vit-base-patch32"


class WordVectors:
    """A fixed (D,) vector for each word; a sentence keeps its first ``max_words`` known words."""

    learns = True  # from the training captions; a checkpoint has its own vectors

    def __init__(self, vocabulary: Sequence[str], vectors: Tensor, max_words: int = 20) -> None:
        if len(vocabulary) != len(vectors):
            raise ValueError(f"{len(vocabulary)} words cannot have {len(vectors)} vectors")
        self.index: Mapping[str, int] = {word: i for i, word in enumerate(vocabulary)}
        self.vectors, self.max_words = vectors, max_words

    def __call__(self, sentence: str) -> Tensor:
        """Look up the known words of a sentence: (L, D), L = 0 if none is known."""
        known = [self.index[word] for word in words_of(sentence) if word in self.index]
        return self.vectors[torch.tensor(known[: self.max_words], dtype=torch.int64)]

    def unknown_words(self, sentence: str) -> list[str]:
        """Return the words of a sentence that have no vector."""
        return [word for word in words_of(sentence) if word not in self.index]

    @classmethod
    def train(
        cls,
        sentences: Iterable[str],
        dim: int = 64,
        epochs: int = 10,
        max_words: int = 20,
        seed: int = 0,
    ) -> WordVectors:
        """Learn vectors from sentences with word2vec (Mikolov et al., arXiv:1310.4546).

        From a few thousand sentences word2vec learns nearly equal vectors (on the built-in corpus
        the cosine of red and blue is 0.99). So they are whitened: mean 0, covariance 1 over the
        vocabulary (compare arXiv:1702.01417). The result depends only on sentences and seed.

        Args:
            sentences: the training captions.
            dim: D.
            epochs: passes over the sentences.
            max_words: later words of a sentence are cut off.
            seed: of the initial vectors and the sampling.
        """
        from gensim.models import Word2Vec  # slow to import

        corpus = [words for sentence in sentences if (words := words_of(sentence))]
        if not corpus:
            raise ValueError("no training caption holds a word, so there are none to learn")
        model = Word2Vec(
            corpus, vector_size=dim, epochs=epochs, min_count=1, workers=1, seed=seed % 2**32
        )
        vectors = torch.from_numpy(model.wv.vectors.copy())
        u, s, vt = torch.linalg.svd(vectors - vectors.mean(dim=0), full_matrices=False)
        scale = (s > 1e-5 * s[0]) * len(vectors) ** 0.5  # V - 1 dimensions at most have any extent
        return cls(model.wv.index_to_key, (u * scale) @ vt, max_words)

    def save(self, folder: Path) -> None:
        """Write the vectors into a checkpoint's folder."""
        metadata = {"max_words": str(self.max_words)}
        safetensors.torch.save_file({"vectors": self.vectors}, folder / VECTORS, metadata)
        (folder / VOCABULARY).write_text("\n".join(self.index) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> WordVectors:
        """Read the vectors of a checkpoint; raise ValueError if a file is missing or damaged."""
        try:
            with safetensors.safe_open(folder / VECTORS, "pt") as file:
                vectors = file.get_tensor("vectors")
                max_words = int(file.metadata()["max_words"])
            vocabulary = (folder / VOCABULARY).read_text(encoding="utf-8").split("\n")[:-1]
        except (OSError, KeyError, safetensors.SafetensorError) as error:
            raise ValueError(f"{folder} has no word vectors that can be read: {error}") from None
        return cls(vocabulary, vectors, max_words)


class _FromFile:
    """A text encoder of others: a checkpoint, or a pickle, has its arguments and no copy of it."""

    learns = False
    reference: ClassVar[str]  # file with the arguments in a checkpoint's folder
    arguments: Mapping[str, Any]  # ready for JSON

    @property
    def path(self) -> str:
        """The file, folder or name that it was opened from."""
        return self.arguments["path"]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the arguments: a data loading process opens the file itself."""
        return functools.partial(type(self), **self.arguments), ()

    def save(self, folder: Path) -> None:
        """Write the arguments into a checkpoint's folder."""
        (folder / self.reference).write_text(json.dumps(self.arguments), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Open what a checkpoint was trained with; raise ValueError if it is not there."""
        try:
            arguments = json.loads((folder / cls.reference).read_text(encoding="utf-8"))
            return cls(**arguments)
        except FileNotFoundError:
            raise ValueError(
                f"{folder} has no {cls.reference}, which names the text encoder that it was"
                " trained with; add text_encoder.path=PATH"
            ) from None
        except ValueError as error:
            raise ValueError(f"the text encoder of {folder} cannot be opened: {error}") from None


class WordVectorFile(_FromFile, WordVectors):
    """Fixed vectors from a file that others have made, such as GoogleNews' word2vec.

    The original file costs each process its whole size (3.6 GB). Converted by tools/convert.py it
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


class CLIPText(_FromFile):
    """Projected outputs of CLIP's text transformer, one for each token of a sentence: (L, 512).

    Args:
        path: a folder as transformers saves it, or a name on the Hugging Face hub.
        max_words: later tokens of a sentence are cut off.

    Raises:
        ValueError: the model or its tokenizer cannot be loaded.
    """

    reference = "clip_text.json"

    def __init__(self, path: str = PUBLISHED_CLIP, max_words: int = 20) -> None:
        from transformers import AutoTokenizer, CLIPTextModelWithProjection  # slow to import

        self.arguments, self.max_words = {"path": path, "max_words": max_words}, max_words
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(path)
            self.model = CLIPTextModelWithProjection.from_pretrained(path).eval()
        except (OSError, ValueError) as error:
            first = str(error).strip().splitlines()[0]
            raise ValueError(
                f"text_encoder.path: CLIP's text model cannot be loaded from {path} ({first});"
                f" download {PUBLISHED_CLIP} from huggingface.co and name its folder"
            ) from None
        self.width = int(self.model.config.projection_dim)

    @torch.no_grad()
    def __call__(self, sentence: str) -> Tensor:
        """Encode a sentence: (L, width), without start and end token; L = 0 without words."""
        text = " ".join(words_of(sentence))
        if not text:
            return torch.zeros(0, self.width)
        inputs = self.tokenizer(text, truncation=True, return_tensors="pt")
        states = self.model.text_model(**inputs).last_hidden_state  # (1, L + 2, D)
        return self.model.text_projection(states)[0, 1:-1][: self.max_words]
