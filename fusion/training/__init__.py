"""Training of any model with any loss, on any number of processes."""

from fusion.training.own_loop import exact_backward, fit
from fusion.training.settings import Settings
from fusion.training.trainer import Trainer

__all__ = ["Settings", "Trainer", "exact_backward", "fit"]
