"""Published models and word vectors as this project reads them."""

from fusion.convert.avlnet import convert_avlnet_name, convert_avlnet_weights
from fusion.convert.checkpoints import convert_checkpoint
from fusion.convert.names import convert_eao_name, convert_eao_weights
from fusion.convert.words import convert_word_vectors

__all__ = [
    "convert_avlnet_name",
    "convert_avlnet_weights",
    "convert_checkpoint",
    "convert_eao_name",
    "convert_eao_weights",
    "convert_word_vectors",
]
