"""Models and encoders, by the names that configs use."""

import os
import shutil
from typing import Any

import torch
from torch import nn

from fusion.models.answering import AnswerModel
from fusion.models.avlnet import MCN, AVLnet
from fusion.models.classifier import VideoClassifier
from fusion.models.davenet import DAVEnet
from fusion.models.eao import EAO
from fusion.models.language_models import CLIPText, HFText
from fusion.models.text_encoders import WordVectorFile, WordVectors
from fusion.models.trained_text import TextTokens
from fusion.models.transformer import GatedProjection
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


def compile_parts(model: nn.Module) -> None:
    """Apply ``torch.compile``, in training only, to the parts of a model with nearly fixed shapes.

    Other parts, with a row for each token of a batch, would be compiled again for each batch.

    Raises:
        ValueError: the model is on a CPU and there is no C++ compiler.
    """
    compilers = (os.environ.get("CXX"), "c++", "g++", "clang++", "cl")
    on_cpu = next(model.parameters()).device.type == "cpu" and not torch.cuda.is_available()
    if on_cpu and not any(name and shutil.which(name) for name in compilers):
        raise ValueError(
            "trainer.compile=true needs a C++ compiler on the CPU; install g++ or clang++"
        )
    for module in model.modules():
        if isinstance(module, (DAVEnet, GatedProjection)):
            _compile_in_training(module)


def _compile_in_training(module: nn.Module) -> None:
    plain = module.forward
    compiled = torch.compile(plain, dynamic=isinstance(module, GatedProjection))
    module.forward = lambda x: (compiled if module.training else plain)(x)
