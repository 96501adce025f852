"""Losses, by the names that configs use."""

from fusion.losses.answers import AnswerLoss
from fusion.losses.classes import ClassLoss
from fusion.losses.combinatorial import CombinatorialLoss
from fusion.losses.contrastive import mms, nce
from fusion.losses.mcn import MCNLoss

LOSSES = {
    "combinatorial": CombinatorialLoss,
    "mcn": MCNLoss,
    "answers": AnswerLoss,
    "classes": ClassLoss,
}

__all__ = ["LOSSES", "AnswerLoss", "ClassLoss", "CombinatorialLoss", "MCNLoss", "mms", "nce"]
