"""Text encoders that were learnt before: frozen transformers, from a folder or a hub.

A text becomes the sequence of the transformer's states, one (D,) vector for each of its tokens
(pieces of words), without the special tokens. Shapes: L tokens of a text, D width.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from fusion.models.text.encoders import FromFile
from fusion.models.text.language_model_files import (
    MINI_LM,
    NO_CODE,
    PUBLISHED_CLIP,
    check_digest,
    find_language_model,
    first_line,
    open_pretrained,
)
from fusion.models.text.trained import open_text_part, read_tokens, unknown_words
from fusion.words import number_of, published_words, words_of

logger = logging.getLogger(__name__)

BATCH = 128  # texts
AHEAD = 20_000  # texts that are encoded together
KEPT = 4 * 2**30  # bytes of states that stay in memory, about


class LanguageModel(FromFile):
    """The states of a frozen transformer for the tokens of a text.

    :meth:`prepare` encodes the texts of a data set at once and keeps their states. Texts of the
    same length make a batch, so no text is padded. A data loading process gets the states; it opens
    the transformer only for other texts.

    Args:
        arguments: of the constructor of the subclass, ready for JSON.
        max_words: later tokens of a text are cut off.

    Attributes:
        width: D.
    """

    width: int

    def __init__(self, arguments: Mapping[str, Any], max_words: int) -> None:
        self.arguments, self.max_words = arguments, max_words
        self._kept: dict[str, Tensor] = {}

    @functools.cached_property
    def tokenizer(self) -> Any:
        """The tokenizer of transformers."""
        return self._open_tokenizer()

    @functools.cached_property
    def model(self) -> Any:
        """The transformer."""
        return self._open_model()

    def _open_tokenizer(self) -> Any:
        """Open the tokenizer; ValueError if it is not there."""
        raise NotImplementedError

    def _open_model(self) -> nn.Module:
        """Open the transformer; ValueError if it is not there."""
        raise NotImplementedError

    def _ids(self, sentences: Sequence[str]) -> tuple[list[list[int]], list[list[bool]]]:
        """Return the tokens that are read of each sentence, and which of their states to keep."""
        raise NotImplementedError

    def _words(self, sentence: str) -> list[str]:
        """Cut a sentence into words; one without words has no states."""
        return words_of(sentence)

    def states(self, ids: Tensor) -> Tensor:
        """Return the states (B, L, D) of tokens (B, L), on the device of the transformer."""
        raise NotImplementedError

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle all but the transformer, which is opened when it is needed."""
        opened = ("tokenizer", "model")
        state = {name: value for name, value in self.__dict__.items() if name not in opened}
        return object.__new__, (type(self),), state

    def __call__(self, sentence: str) -> Tensor:
        """Encode a sentence: (L, D); L = 0 without words."""
        found = self._kept.get(sentence)
        return self.encode([sentence])[0] if found is None else found

    def read(self, sentence: str) -> Tensor:
        """Number the tokens of a sentence: (L, 2) int32, the number and 1 if its state is kept.

        L = 0 without words. :class:`fusion.models.text.tower.TextTower` makes states of them.
        """
        if not self._words(sentence):
            return torch.zeros(0, 2, dtype=torch.int32)
        (ids,), (kept,) = self._ids([sentence])
        kept = [keep and sum(kept[:place]) < self.max_words for place, keep in enumerate(kept)]
        rows = torch.tensor([ids, kept], dtype=torch.int32).T.contiguous()
        return rows if any(kept) else rows[:0]

    @torch.no_grad()
    def encode(
        self, sentences: Sequence[str], device: torch.device | str | None = None
    ) -> list[Tensor]:
        """Encode sentences, (L, D) float32 on the CPU for each; L = 0 without words.

        ``device`` moves the transformer there first; None leaves it where it is.
        """
        if device is not None:
            self.model.to(device)
        where = next(self.model.parameters()).device
        result = [torch.zeros(0, self.width) for _ in sentences]
        spoken = [i for i, sentence in enumerate(sentences) if self._words(sentence)]
        if not spoken:
            return result
        ids, kept = self._ids([sentences[i] for i in spoken])
        order = sorted(range(len(spoken)), key=lambda i: len(ids[i]))
        batches: list[list[int]] = []
        for i in order:
            if not batches or len(batches[-1]) == BATCH or len(ids[batches[-1][0]]) != len(ids[i]):
                batches.append([])
            batches[-1].append(i)
        hidden = len(sentences) < AHEAD
        for batch in tqdm(batches, "texts", leave=False, disable=hidden):
            states = self.states(torch.tensor([ids[i] for i in batch], device=where)).float().cpu()
            for i, rows in zip(batch, states, strict=True):
                result[spoken[i]] = rows[torch.tensor(kept[i])][: self.max_words]
        return result

    def prepare(self, sentences: Iterable[str]) -> None:
        """Encode the sentences of a data set, on the GPU if there is one, and keep their states.

        States beyond ``KEPT`` bytes are not kept; their sentences are encoded when they are read.
        """
        new = [text for text in dict.fromkeys(sentences) if text not in self._kept]
        # A data loading process that was forked can use no GPU: the model goes back afterwards.
        device = "cuda" if torch.cuda.is_available() else "cpu"
        used = sum(states.nbytes for states in self._kept.values())
        for first in range(0, len(new), AHEAD):
            if used > KEPT:
                logger.warning(
                    f"{len(new) - first:,} of {number_of(len(new), 'text')} are not encoded ahead,"
                    " as their states need too much memory"
                )
                break
            part = new[first : first + AHEAD]
            found = self.encode(part, device)
            used += sum(states.nbytes for states in found)
            self._kept |= dict(zip(part, found, strict=True))
        self.model.to("cpu")


class HFText(LanguageModel):
    """The last states of any text encoder of transformers: BERT, MiniLM, T5, CLIP's text model.

    Args:
        model: a folder as transformers saves it, or a name on the Hugging Face hub.
        max_words: later tokens of a text are cut off; the transformer does not read them.
        sha256: of the weights; None: any. A checkpoint keeps that of its training.

    Raises:
        ValueError: the model cannot be loaded, or its weights are others.
    """

    place = "model"
    has_digest = True
    reference = "language_model.json"

    def __init__(
        self, model: str | Path | None = None, max_words: int = 32, sha256: str | None = None
    ) -> None:
        if model is None:
            raise ValueError(
                "which language model? add text_encoder.model=FOLDER, or the name of one on the"
                f" Hugging Face hub, such as {MINI_LM}"
            )
        self.folder = find_language_model(model)
        found = check_digest(self.folder, sha256)
        place = str(self.folder) if Path(model).expanduser().exists() else str(model)
        super().__init__({"model": place, "max_words": max_words, "sha256": found}, max_words)
        self.width = int(self.model.config.hidden_size)
        _ = self.tokenizer  # a mistake is found here

    def _open_tokenizer(self) -> Any:
        from transformers import AutoTokenizer  # slow to import

        return open_pretrained(AutoTokenizer, self.folder)

    def _open_model(self) -> nn.Module:
        return open_text_part(self.folder).float().eval().requires_grad_(False)

    def _ids(self, sentences: Sequence[str]) -> tuple[list[list[int]], list[list[bool]]]:
        return read_tokens(self.tokenizer, sentences, self.max_words)[:2]

    def states(self, ids: Tensor) -> Tensor:
        """Return the states (B, L, D) of tokens (B, L), on the device of the transformer."""
        states: Tensor = self.model(input_ids=ids).last_hidden_state
        return states

    def unknown_words(self, sentence: str) -> list[str]:
        """Return the words of a sentence of which no piece is known."""
        return unknown_words(self.tokenizer, sentence)


class CLIPText(LanguageModel):
    """Projected outputs of CLIP's text transformer (Radford et al., arXiv:2103.00020): D = 512.

    It reads the words of a text alone, as EAO's CLIP variant does.

    Args:
        path: a folder as transformers saves it, or a name on the Hugging Face hub.
        max_words: later tokens of a sentence are cut off.

    Raises:
        ValueError: the model or its tokenizer cannot be loaded.
    """

    reference = "clip_text.json"

    def __init__(self, path: str = PUBLISHED_CLIP, max_words: int = 20) -> None:
        super().__init__({"path": path, "max_words": max_words}, max_words)
        self.width = int(self.model.config.projection_dim)
        _ = self.tokenizer  # a mistake is found here

    def _open_tokenizer(self) -> Any:
        from transformers import AutoTokenizer  # slow to import

        return self._load(AutoTokenizer)

    def _open_model(self) -> nn.Module:
        from transformers import CLIPTextModelWithProjection  # slow to import

        model: nn.Module = self._load(CLIPTextModelWithProjection).eval().requires_grad_(False)
        return model

    def _load(self, kind: Any) -> Any:
        try:
            return kind.from_pretrained(self.path, **NO_CODE)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"text_encoder.path: CLIP's text model cannot be loaded from {self.path}"
                f" ({first_line(error)}); download {PUBLISHED_CLIP} from huggingface.co and name"
                " its folder"
            ) from None

    def _words(self, sentence: str) -> list[str]:
        return published_words(sentence)

    def _ids(self, sentences: Sequence[str]) -> tuple[list[list[int]], list[list[bool]]]:
        texts = [" ".join(self._words(sentence)) for sentence in sentences]
        read: list[list[int]] = self.tokenizer(texts, truncation=True)["input_ids"]
        # A token sees only those before it: the end and what max_words cuts off change nothing.
        ids = [text[:-1][: self.max_words + 1] for text in read]
        return ids, [[False, *[True] * (len(text) - 1)] for text in ids]

    def states(self, ids: Tensor) -> Tensor:
        """Return the states (B, L, D) of tokens (B, L), on the device of the transformer."""
        states: Tensor = self.model.text_projection(self.model.text_model(ids).last_hidden_state)
        return states
