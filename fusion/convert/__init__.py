"""Published models and word vectors as this project reads them."""

from fusion.convert.checkpoints import convert_checkpoint, convert_word_vectors
from fusion.convert.names import convert_name, convert_weights

__all__ = ["convert_checkpoint", "convert_name", "convert_weights", "convert_word_vectors"]
