"""Training of any model with any loss, on any number of processes."""

from fusion.training.trainer import Trainer

__all__ = ["Trainer"]
