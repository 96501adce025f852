"""Models and encoders, by the names that configs use."""

from typing import Any

from fusion.models.answering import AnswerModel
from fusion.models.avlnet import MCN, AVLnet
from fusion.models.classifier import VideoClassifier
from fusion.models.compiling import compile_parts
from fusion.models.eao import EAO
from fusion.models.text.encoders import WordVectorFile, WordVectors
from fusion.models.text.language_models import CLIPText, HFText
from fusion.models.text.trained import TextTokens
from fusion.models.tsm import TSM

MODELS: dict[str, Any] = {
    "eao": EAO,
    "mcn": MCN,
    "avlnet": AVLnet,
    "answering": AnswerModel,
    "classifier": VideoClassifier,
}
TEXT_ENCODERS: dict[str, Any] = {
    "word2vec": WordVectors,
    "word2vec_file": WordVectorFile,
    "clip": CLIPText,
    "hf": HFText,
    "hf_tokens": TextTokens,
}

__all__ = [
    "EAO",
    "MCN",
    "MODELS",
    "TEXT_ENCODERS",
    "TSM",
    "AVLnet",
    "AnswerModel",
    "VideoClassifier",
    "WordVectors",
    "compile_parts",
]
