"""Optimizers and learning-rate schedules, by the names that configs use."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}

# Share of the highest learning rate, as a function of the share of steps done and of the epoch.
SCHEDULES: dict[str, Callable[[float, float], float]] = {
    "constant": lambda progress, epoch: 1.0,
    "linear": lambda progress, epoch: 1.0 - progress,
    "cosine": lambda progress, epoch: 0.5 * (1 + math.cos(math.pi * progress)),
    "exponential": lambda progress, epoch: 0.9 ** math.floor(epoch),  # EAO's, arXiv:2112.04446
}


def make_optimizer(
    name: str, parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Build an optimizer.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"trainer.optimizer: unknown {name!r}; choose from {list(OPTIMIZERS)}")
    # Fused: faster, and it can skip a step without a device synchronisation.
    parameters = [p for p in parameters if p.requires_grad]
    return OPTIMIZERS[name](parameters, lr=learning_rate, weight_decay=weight_decay, fused=True)


def allocate_state(optimizer: torch.optim.Optimizer) -> None:
    """Make a fused optimizer allocate its state now, before the first step."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.found_inf = torch.ones((), device=parameters[0].device)  # type: ignore[attr-defined]
    optimizer.step()  # skipped, as if the gradient were not finite
    optimizer.zero_grad()


def make_schedule(
    name: str, optimizer: torch.optim.Optimizer, warmup_steps: int, steps: int, epochs: int
) -> LambdaLR:
    """Build a schedule: a linear warm-up, then the named curve to the end of training.

    Args:
        name: one of ``SCHEDULES``.
        optimizer: its learning rate is the highest.
        warmup_steps: number of steps until the learning rate is at its highest.
        steps: number of steps of the whole run.
        epochs: number of epochs of the whole run.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in SCHEDULES:
        raise ValueError(f"trainer.schedule: unknown {name!r}; choose from {list(SCHEDULES)}")
    curve = SCHEDULES[name]

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = (step - warmup_steps) / max(1, steps - warmup_steps)
        return curve(min(1.0, progress), epochs * step / max(1, steps))

    return LambdaLR(optimizer, factor)
