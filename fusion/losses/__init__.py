"""Losses, by the names that configs use."""

from fusion.losses.combinatorial import CombinatorialLoss
from fusion.losses.nce import mms, nce

LOSSES = {"combinatorial": CombinatorialLoss}

__all__ = ["LOSSES", "CombinatorialLoss", "mms", "nce"]
