"""Optimizers and learning-rate schedules by the names that configs use; the non-finite guard."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from accelerate import Accelerator
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

MOST = 10  # steps in a row without a finite gradient
MOST_SCALED = 40  # the same with fp16, whose loss scale begins too high on purpose

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
    """Build an optimizer of ``OPTIMIZERS``; a ValueError says that the name is unknown."""
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
    """Build a schedule: ``warmup_steps`` of linear warm-up, then the named curve of ``SCHEDULES``.

    ``steps`` and ``epochs`` are those of the whole run. The highest rate is the optimizer's. An
    unknown name is a ValueError.
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


class NonFiniteGuard:
    """Clips the gradient of each step and skips steps where it is not finite.

    Gradients with a norm above ``max_norm`` are clipped (None: never). With fp16 the accelerator's
    scaler skips steps by itself.
    """

    def __init__(self, accelerator: Accelerator, max_norm: float | None) -> None:
        self.accelerator, self.max_norm = accelerator, max_norm
        self.most = MOST if accelerator.scaler is None else MOST_SCALED
        device = accelerator.device
        self._skipped = torch.zeros((), dtype=torch.int64, device=device)  # since the last look
        self._in_a_row = torch.zeros_like(self._skipped)
        self._norm = torch.zeros((), device=device)
        self._bad_norm = torch.zeros_like(self._norm)  # the last that was not finite
        self.bad = torch.zeros((), dtype=torch.bool, device=device)  # the last checked gradient

    def check(self, parameters: Iterable[nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradients of ``parameters`` and tell the optimizer whether to skip the step.

        The optimizer must be a fused one, which reads the answer on the device.
        """
        parameters = list(parameters)
        if self.max_norm is None:
            self.accelerator.unscale_gradients()
            gradients = [p.grad for p in parameters if p.grad is not None]
            self._norm = torch.nn.utils.get_total_norm(gradients)
        else:
            self._norm = self.accelerator.clip_grad_norm_(parameters, self.max_norm)
        self.bad = ~torch.isfinite(self._norm)
        if self.accelerator.scaler is None:
            optimizer.found_inf = self.bad.to(torch.float32)  # type: ignore[attr-defined]

    def count(self) -> None:
        """Count the step whose gradients were checked; call it once all ranks have agreed."""
        self._bad_norm = torch.where(self.bad, self._norm, self._bad_norm)
        self._skipped += self.bad
        self._in_a_row = (self._in_a_row + 1) * self.bad

    def look(self, step: int) -> str | None:
        """Read the counters back; return a message if steps were skipped since the last call.

        Raises:
            FloatingPointError: too many steps in a row were skipped.
        """
        skipped, in_a_row = int(self._skipped), int(self._in_a_row)
        self._skipped = torch.zeros_like(self._skipped)
        if in_a_row >= self.most:
            raise FloatingPointError(
                f"the gradient was not finite in {in_a_row} steps in a row, up to step {step};"
                f" lower trainer.learning_rate or set trainer.max_grad_norm (now {self.max_norm})"
            )
        if not skipped:
            return None
        return (
            f"{skipped} step{'s' if skipped > 1 else ''} up to step {step} left out, as the"
            f" gradient was not finite ({float(self._bad_norm)}; {in_a_row} in a row)"
        )
