"""Losses, by the names that configs use."""

from fusion.losses.combinatorial import CombinatorialLoss
from fusion.losses.contrastive import nce
from fusion.losses.mcn import MCNLoss
from fusion.losses.mms import mms

LOSSES = {"combinatorial": CombinatorialLoss, "mcn": MCNLoss}

__all__ = ["LOSSES", "CombinatorialLoss", "MCNLoss", "mms", "nce"]
