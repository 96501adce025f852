"""Losses, by the names that configs use."""

from fusion.losses.combinatorial import CombinatorialLoss
from fusion.losses.contrastive import mms, nce
from fusion.losses.mcn import MCNLoss

LOSSES = {"combinatorial": CombinatorialLoss, "mcn": MCNLoss}

__all__ = ["LOSSES", "CombinatorialLoss", "MCNLoss", "mms", "nce"]
