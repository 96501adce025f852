"""Optimizers and learning-rate schedules by the names that configs use; the non-finite guard."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

MOST = 10  # steps in a row without a finite gradient
MOST_SCALED = 40  # the same with fp16, whose loss scale begins too high on purpose

SGD = "sgd"  # the optimizer that has momentum
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    SGD: torch.optim.SGD,
}

STEPS = "steps"  # the schedule that has milestones
DROP = 0.1  # factor of the learning rate at each of them

# Share of the highest learning rate, as a function of the share of steps done and of the epoch.
SCHEDULES: dict[str, Callable[[float, float], float]] = {
    "constant": lambda progress, epoch: 1.0,
    "linear": lambda progress, epoch: 1.0 - progress,
    "cosine": lambda progress, epoch: 0.5 * (1 + math.cos(math.pi * progress)),
    "exponential": lambda progress, epoch: 0.9 ** math.floor(epoch),  # EAO's, arXiv:2112.04446
}


def make_optimizer(
    name: str,
    parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
    learning_rate: float,
    weight_decay: float,
    momentum: float = 0.0,
    nesterov: bool = False,
) -> torch.optim.Optimizer:
    """Build an optimizer of ``OPTIMIZERS``; a ValueError says that the name is unknown.

    ``parameters`` may be groups, see :func:`make_groups`. ``momentum`` and ``nesterov`` are those
    of SGD.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"trainer.optimizer: unknown {name!r}; choose from {list(OPTIMIZERS)}")
    given = [p for p in parameters if not isinstance(p, nn.Parameter) or p.requires_grad]
    # Fused: faster, and it can skip a step without a device synchronisation.
    more = {"momentum": momentum, "nesterov": nesterov} if name == SGD else {}
    decay = {"lr": learning_rate, "weight_decay": weight_decay}
    return OPTIMIZERS[name](given, **decay, **more, fused=True)


def make_groups(
    named: Iterable[tuple[str, nn.Parameter]], part_rates: Mapping[str, float], decays_all: bool
) -> list[dict[str, Any]]:
    """Sort a model's trained parameters into groups for :func:`make_optimizer`.

    Args:
        named: parameters and their names.
        part_rates: the highest learning rate of each part, see :func:`part_of`; other parameters
            have the main rate.
        decays_all: all parameters decay; else only matrices, see :func:`is_matrix`.

    Returns:
        One group for each part and kind of decay, with its name as ``part``. Parameters with the
        main rate come first, as the part ``""``, even if there are none. A model in one group has
        its parameters in their own order.

    Raises:
        ValueError: a part has no trained parameter.
    """
    trained = [(name, parameter) for name, parameter in named if parameter.requires_grad]
    check_parts(part_rates, [name for name, _ in trained])
    groups: dict[tuple[str, bool], dict[str, Any]] = {("", True): {"params": [], "part": ""}}
    for name, parameter in trained:
        part, decays = part_of(name, part_rates), decays_all or is_matrix(parameter)
        if (part, decays) not in groups:
            own: dict[str, Any] = {"lr": part_rates[part]} if part else {}
            own |= {} if decays else {"weight_decay": 0.0}
            groups[part, decays] = {"params": [], "part": part, **own}
        groups[part, decays]["params"].append(parameter)
    return list(groups.values())


def part_of(name: str, parts: Iterable[str]) -> str:
    """Return the longest of ``parts`` that a parameter's name begins with; "": there is none.

    Words between dots are compared as a whole: ``encoders.image`` does not fit ``encoders.images``.
    """
    fitting = (part for part in parts if f"{name}.".startswith(f"{part}."))
    return max(fitting, key=len, default="")


def check_parts(
    parts: Iterable[str], names: Iterable[str], key: str = "trainer.part_learning_rates"
) -> None:
    """Raise ValueError if a part that ``key`` names fits none of the parameters' names."""
    names = list(names)
    for part in parts:
        if not any(part_of(name, [part]) for name in names):
            known = dict.fromkeys(".".join(name.split(".")[:2]) for name in names)
            raise ValueError(
                f"{key}: no trained parameter is in {part!r}; the parts are {', '.join(known)}"
            )


def is_matrix(parameter: Tensor) -> bool:
    """Return whether a tensor has two dimensions longer than one: no bias, norm or single token."""
    return sum(size > 1 for size in parameter.shape) >= 2


def allocate_state(optimizer: torch.optim.Optimizer) -> None:
    """Make a fused optimizer allocate its state now, before the first step."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.found_inf = torch.ones((), device=parameters[0].device)  # type: ignore[attr-defined]
    optimizer.step()  # skipped, as if the gradient were not finite
    for state in optimizer.state.values():
        if (momentum := state.get("momentum_buffer")) is not None:
            momentum.zero_()  # SGD leaves it uninitialised where its first step is skipped
    optimizer.zero_grad()


def make_schedule(
    name: str,
    optimizer: torch.optim.Optimizer,
    warmup_steps: int,
    steps: int,
    epochs: int,
    milestones: Sequence[float] = (),
) -> LambdaLR:
    """Build a schedule: ``warmup_steps`` of linear warm-up, then the named curve of ``SCHEDULES``.

    ``steps`` and ``epochs`` are those of the whole run. The highest rate is the optimizer's. The
    schedule ``steps`` multiplies it by 0.1 after each of ``milestones``, in epochs. An unknown name
    is a ValueError.
    """
    if name not in (*SCHEDULES, STEPS):
        known = [*SCHEDULES, STEPS]
        raise ValueError(f"trainer.schedule: unknown {name!r}; choose from {known}")

    def dropping(progress: float, epoch: float) -> float:
        return float(DROP ** sum(epoch >= milestone for milestone in milestones))

    curve = dropping if name == STEPS else SCHEDULES[name]

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
