"""A transformer of the library of this name that reads texts and is trained with the model.

The text encoder (:class:`TextTokens`) only numbers the tokens of a text; the transformer
(:class:`TrainedText`) is part of the model. Shapes: L tokens of a text, T of all texts.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from fusion.models.text.encoders import FromFile
from fusion.models.text.language_model_files import (
    NO_CODE,
    check_digest,
    find_language_model,
    has_weights,
    open_pretrained,
)
from fusion.tokens import Tokens, pick, true_places
from fusion.words import number_of, words_of


class TrainedText(nn.Module):
    """An encoder of a modality: token numbers become the states of a transformer.

    Its input are (T, 2) tokens: the number of a token, and 1 if its state is kept, or 0 for one of
    the ``special`` tokens of every text. It stays in evaluation mode, so without dropout: the exact
    step embeds a clip twice and needs the same result. Equal texts, such as the same question about
    several images, are encoded once.

    Args:
        config: of the transformer, as ``to_diff_dict`` of transformers gives it.
        special: the number of special tokens of a text.
    """

    in_dim = 2

    def __init__(self, config: Mapping[str, Any], special: int) -> None:
        super().__init__()
        import transformers  # slow to import

        arguments = {key: value for key, value in config.items() if key != "model_type"}
        made = transformers.AutoConfig.for_model(config["model_type"], **arguments)
        self.model: Any = text_part(text_model(made).from_config(made, **NO_CODE))
        if hasattr(self.model, "pooler"):
            self.model.pooler = None  # it reads the states; nothing reads it
        self.special, self.out_dim = special, int(made.hidden_size)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of this module; the transformer stays in evaluation mode."""
        super().train(mode)
        self.model.eval()
        return self

    def forward(self, tokens: Tokens) -> Tokens:
        """Encode (T, 2) tokens: (T - special tokens, out_dim)."""
        lengths = (tokens.lengths - self.special).clamp(min=0)
        host_lengths = (tokens.host_lengths - self.special).clamp(min=0)
        if not tokens.longest:
            return Tokens(tokens.values.new_zeros(0, self.out_dim), lengths, host_lengths)
        padded, mask = tokens.pad()
        kept = mask & (padded[..., 1] > 0)
        numbers = padded[..., 0].long().masked_fill(~mask, -1)  # (B, L)
        texts, same = torch.unique(numbers, dim=0, return_inverse=True)
        read = texts >= 0
        read[:, 0] = True  # attention over nothing is not a number
        states = self.model(input_ids=texts.clamp(min=0), attention_mask=read.long())
        rows = states.last_hidden_state[same].flatten(0, 1)
        places = true_places(kept, int(host_lengths.sum()))
        return Tokens(pick(rows, places), lengths, host_lengths)


class TextTokens(FromFile):
    """The numbers of a text's tokens, (L, 2) float32, see :class:`TrainedText`.

    A checkpoint has a copy of the tokenizer, and the weights of the model are those of the model.

    Args:
        model: a folder as transformers saves it, or a name on the Hugging Face hub.
        max_words: later tokens of a text are cut off.
        sha256: of the weights that the model begins with; None: any.

    Raises:
        ValueError: there is no such tokenizer, or the weights are others.
    """

    place = "model"
    has_digest = True
    reference = "text_tokens.json"
    width = 2

    def __init__(self, model: str | Path, max_words: int = 32, sha256: str | None = None) -> None:
        from transformers import AutoTokenizer  # slow to import

        self.folder, self.max_words = find_language_model(model), max_words
        if sha256 is not None and has_weights(self.folder):
            check_digest(self.folder, sha256)
        self.arguments = {"model": str(model), "max_words": max_words, "sha256": sha256}
        self.tokenizer: Any = open_pretrained(AutoTokenizer, self.folder)

    def __call__(self, sentence: str) -> Tensor:
        """Number the tokens of a sentence: (L, 2), L = 0 without a known word."""
        if not words_of(sentence):
            return torch.zeros(0, 2)
        found = read_tokens(self.tokenizer, [sentence], self.max_words)
        ids, kept, special = (rows[0] for rows in found)
        if not any(kept):
            return torch.zeros(0, 2)
        rows = zip(ids, kept, special, strict=True)  # unknown tokens are left out
        return torch.tensor(
            [[number, keep] for number, keep, other in rows if keep or other]
        ).float()

    def start(self, encoder: TrainedText) -> None:
        """Give an encoder the weights that the language model was published with, if it is here.

        ValueError: they are not whole.
        """
        if not has_weights(self.folder):
            return  # of a checkpoint, which has the weights
        weights = open_text_part(self.folder).state_dict()
        encoder.model.load_state_dict({k: weights[k] for k in encoder.model.state_dict()})

    def encoder_spec(self) -> dict[str, Any]:
        """Return the encoder of the modality in a config, see :class:`TrainedText`."""
        from transformers import AutoConfig  # slow to import

        config = open_pretrained(AutoConfig, self.folder)
        config = getattr(config, "text_config", None) or config
        left_out = ("architectures", "dtype", "transformers_version", "_name_or_path")
        said = {k: v for k, v in config.to_diff_dict().items() if k not in left_out}
        said["model_type"] = config.model_type
        special = self.tokenizer.num_special_tokens_to_add()
        return {"name": "transformer", "config": said, "special": special}

    def unknown_words(self, sentence: str) -> list[str]:
        """Return the words of a sentence of which no piece is known."""
        return unknown_words(self.tokenizer, sentence)

    def save(self, folder: Path) -> None:
        """Write the arguments and the tokenizer into a checkpoint's folder."""
        super().save(folder)
        self.tokenizer.save_pretrained(folder / "tokenizer")

    @classmethod
    def load(cls, folder: Path, moved: str | Path | None = None) -> Self:
        """Read the tokenizer of a checkpoint, wherever the language model is now."""
        return super().load(folder, folder / "tokenizer")


def text_model(config: Any) -> Any:
    """Return the class of transformers that makes a text model of a config."""
    import transformers  # slow to import

    if type(config) in transformers.MODEL_FOR_TEXT_ENCODING_MAPPING:  # such as T5: no decoder
        return transformers.AutoModelForTextEncoding
    return transformers.AutoModel


def text_part(whole: Any) -> Any:
    """Return the part of a model of transformers whose states are those of a text's tokens."""
    model = getattr(whole, "text_model", whole)
    if getattr(model, "decoder", None) is not None and hasattr(model, "encoder"):
        model = model.encoder
    return model


def open_text_part(folder: Path) -> nn.Module:
    """Open the part of the model in a folder that reads texts; ValueError: weights are missing."""
    from transformers import AutoConfig  # slow to import

    family = text_model(open_pretrained(AutoConfig, folder))
    whole, report = open_pretrained(family, folder, output_loading_info=True)
    model: nn.Module = text_part(whole)
    prefix = next(name for name, module in whole.named_modules() if module is model)
    missing = [name for name in report["missing_keys"] if name.startswith(prefix)]
    missing = [name for name in missing if "pooler" not in name]  # which reads the states
    if missing:
        raise ValueError(
            f"text_encoder.model: the weights of {folder} lack {sorted(missing)[0]} (and"
            f" {len(missing) - 1} more); name the folder of a whole model"
        )
    return model


def read_tokens(
    tokenizer: Any, sentences: Sequence[str], max_words: int
) -> tuple[list[list[int]], list[list[bool]], list[list[int]]]:
    """Number the tokens of sentences.

    Returns:
        For each sentence the numbers of its tokens; which of their states are kept, those of known
        tokens that are not special; and which tokens are special.
    """
    most = max_words + tokenizer.num_special_tokens_to_add()
    options = {"padding": False, "truncation": True, "return_special_tokens_mask": True}
    read = tokenizer(list(sentences), max_length=most, **options)
    unknown, masks = tokenizer.unk_token_id, read["special_tokens_mask"]
    ids: list[list[int]] = read["input_ids"]
    full = [text for text, own in zip(sentences, ids, strict=True) if len(own) == most]
    longer = tokenizer(full, max_length=most + 1, **options)["input_ids"] if full else []
    if cut := sum(len(own) > most for own in longer):
        warnings.warn(
            f"{cut} of {number_of(len(ids), 'text')} have more than {max_words} tokens, so"
            " their end is cut off; text_encoder.max_words is the limit",
            stacklevel=2,
        )
    kept = [
        [not special and token != unknown for token, special in zip(*text, strict=True)]
        for text in zip(ids, masks, strict=True)
    ]
    return ids, kept, masks


def unknown_words(tokenizer: Any, sentence: str) -> list[str]:
    """Return the words of a sentence of which a tokenizer knows no piece."""
    words = words_of(sentence)
    kept = read_tokens(tokenizer, words, 500)[1] if words else []
    return [word for word, rows in zip(words, kept, strict=True) if not any(rows)]
