"""A transformer of the library of this name that reads texts and is trained with the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import nn

from fusion.tokens import Tokens, pick, true_places


class TrainedText(nn.Module):
    """An encoder of a modality: token numbers become the states of a transformer.

    Its input are (T, 2) tokens: the number of a token, and 1 if its state is kept, or 0 for one of
    the ``special`` tokens of every text. It stays in evaluation mode, so without dropout: the exact
    step embeds a clip twice and needs the same result.

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
        self.model: Any = text_model(made).from_config(made)
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
        read = mask.clone()
        read[:, 0] = True  # attention over nothing is not a number
        states = self.model(input_ids=padded[..., 0].long(), attention_mask=read.long())
        places = true_places(kept, int(host_lengths.sum()))
        return Tokens(pick(states.last_hidden_state.flatten(0, 1), places), lengths, host_lengths)


def text_model(config: Any) -> Any:
    """Return the class of transformers that makes a text model of a config."""
    import transformers  # slow to import

    if type(config) in transformers.MODEL_FOR_TEXT_ENCODING_MAPPING:  # such as T5: no decoder
        return transformers.AutoModelForTextEncoding
    return transformers.AutoModel
