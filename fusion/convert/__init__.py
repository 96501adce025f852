"""Published models and word vectors as this project reads them."""

from fusion.convert.checkpoints import convert_checkpoint
from fusion.convert.names import convert_name, convert_weights
from fusion.convert.words import convert_word_vectors

__all__ = ["convert_checkpoint", "convert_name", "convert_weights", "convert_word_vectors"]
