"""Losses, by the names that configs use."""

from fusion.losses.answers import AnswerLoss
from fusion.losses.combinatorial import CombinatorialLoss
from fusion.losses.contrastive import mms, nce
from fusion.losses.mcn import MCNLoss

LOSSES = {"combinatorial": CombinatorialLoss, "mcn": MCNLoss, "answers": AnswerLoss}

__all__ = ["LOSSES", "AnswerLoss", "CombinatorialLoss", "MCNLoss", "mms", "nce"]
