"""Text tokens of a frozen CLIP (Radford et al., arXiv:2103.00020), as in EAO's CLIP variant."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fusion.words import words_of

REFERENCE = "clip_text.json"
PUBLISHED = "openai/clip-vit-base-patch32"


class CLIPText:
    """Projected outputs of CLIP's text transformer, one for each token of a sentence: (L, 512).

    Args:
        path: a folder as transformers saves it, or a name on the Hugging Face hub.
        max_words: later tokens of a sentence are cut off.

    Raises:
        ValueError: the model or its tokenizer cannot be loaded.
    """

    learns = False

    def __init__(self, path: str = PUBLISHED, max_words: int = 20) -> None:
        from transformers import AutoTokenizer, CLIPTextModelWithProjection  # slow to import

        self.path, self.max_words = path, max_words
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(path)
            self.model = CLIPTextModelWithProjection.from_pretrained(path).eval()
        except (OSError, ValueError) as error:
            first = str(error).strip().splitlines()[0]
            raise ValueError(
                f"text_encoder.path: CLIP's text model cannot be loaded from {path} ({first});"
                f" download {PUBLISHED} from huggingface.co and name its folder"
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

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the path alone: a data loading process loads the model itself."""
        return CLIPText, (self.path, self.max_words)

    @classmethod
    def train(
        cls,
        path: str = PUBLISHED,
        max_words: int = 20,
        sentences: Iterable[str] = (),
        seed: int = 0,
    ) -> CLIPText:
        """Load the model; nothing is learnt, and ``sentences`` and ``seed`` are not used."""
        return cls(path, max_words)

    def save(self, folder: Path) -> None:
        """Write the path of the model into a checkpoint's folder; the model is not copied."""
        facts = {"path": self.path, "max_words": self.max_words}
        (folder / REFERENCE).write_text(json.dumps(facts), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> CLIPText:
        """Load the model that a checkpoint was trained with; raise ValueError if there is none."""
        try:
            facts = json.loads((folder / REFERENCE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ValueError(
                f"{folder} does not say which CLIP it was trained with; add"
                " text_encoder.path=FOLDER"
            ) from None
        return cls(**facts)
