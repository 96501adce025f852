"""Models and encoders, by the names that configs use."""

from fusion.models.eao import EAO
from fusion.models.text import WordVectors

MODELS = {"eao": EAO}
TEXT_ENCODERS = {"word2vec": WordVectors}

__all__ = ["EAO", "MODELS", "TEXT_ENCODERS", "WordVectors"]
