"""How to train: the ``trainer`` section of a config."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from fusion.config import flatten
from fusion.distributed import TIMEOUT_MINUTES
from fusion.training.optim import SGD, STEPS, make_groups, make_optimizer, make_schedule

LAST = "last"  # as Settings.best: no result is compared
DECAYS = ("all", "matrices")
HIGHEST_RATE = 100.0  # ten times what fusion find-lr tries


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to train; the ``trainer`` section of a config.

    Attributes:
        epochs: passes over the training set; with ``fit`` a config may leave it null.
        batch_size: clips in a step, over all processes; whatever the memory.
        chunk_size: the largest number of clips in memory at a time on one process; it changes
            memory and speed, never the result. null: as many as are likely to fit. Either way,
            chunks are halved when memory runs out.
        learning_rate: the highest, after the warm-up.
        learning_rate_batch: the batch that all learning rates are for; other batches scale them in
            proportion (Goyal et al., arXiv:1706.02677). null: rates are as given.
        part_learning_rates: the same for parts of the model, by the beginning of their parameters'
            names, such as ``{encoders.audio: 1.0e-5}``. The longest name that fits wins. All rates
            have the same warm-up and schedule.
        optimizer: one of :data:`fusion.training.optim.OPTIMIZERS`.
        momentum: of ``sgd``.
        nesterov: take Nesterov's momentum instead.
        schedule: one of :data:`fusion.training.optim.SCHEDULES`; or ``steps``.
        milestones: of ``steps``: the epochs after which the learning rate is multiplied by 0.1.
        warmup_steps: steps until the learning rate is at its highest.
        warmup_epochs: the same in epochs, which may be parts, instead of ``warmup_steps``.
        weight_decay: of the optimizer.
        decay: which parameters ``weight_decay`` is for: ``all``; or ``matrices``, which leaves out
            biases, norms and single tokens (tensors without two dimensions longer than one).
        max_grad_norm: gradients with a larger norm are clipped; null: never.
        mixed_precision: ``auto``, bf16 on a GPU that computes in it and else ``no``; ``no``,
            ``fp16`` or ``bf16``; null: what the launcher says. A run goes on in what it began with.
        compile: use ``torch.compile`` for parts of the model, each once for chunks of any size;
            slow to start, then faster.
        num_workers: processes that load data, for each process that trains.
        num_processes: how many processes must run; a launch of another number is an error. null:
            any number.
        overlap: average gradients over the processes while the last chunk is still being computed;
            it changes only speed.
        bf16_gradients: send gradients between processes in bf16: half the bytes, but the result
            depends a little on the number of processes.
        timeout_minutes: how long processes wait for one that hangs, until the run ends with an
            error. The work of the main process before training is waited for without limit.
        log_every: steps between two rows of ``metrics.jsonl``; the end of an epoch has one too.
        save_every: steps between two checkpoints, besides the one at the end of each epoch.
        save_every_minutes: the same in minutes, which may be parts; null: never by time.
        keep_last: how many of the newest checkpoints are kept, in case one is damaged.
        fit: take smaller batches where there are few clips, see
            :func:`fusion.tasks.fit.fit_trainer`.
        best: the result of the evaluation that selects the best checkpoint, larger is better;
            null: the first result; ``last``: the last epoch counts, whatever its results.
        patience: epochs without a better ``best`` after which training ends, long before ``epochs``
            perhaps; the schedule is still that of ``epochs``. null: it never ends early.
        report_split: the split that is evaluated at the end; null: test, or validation where there
            is none. Choose settings on validation.

    Raises:
        ValueError: a number is out of its range.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    chunk_size: int | None = None
    learning_rate_batch: int | None = None
    optimizer: str = "adam"
    momentum: float = 0.0
    nesterov: bool = False
    schedule: str = "cosine"
    milestones: list[float] | None = None
    warmup_steps: int = 0
    warmup_epochs: float | None = None
    weight_decay: float = 0.0
    decay: str = "all"
    part_learning_rates: dict[str, Any] | None = None
    max_grad_norm: float | None = None
    mixed_precision: str | bool | None = "auto"
    compile: bool = False
    num_workers: int = 0
    num_processes: int | None = None
    overlap: bool = True
    bf16_gradients: bool = False
    timeout_minutes: float = TIMEOUT_MINUTES
    log_every: int = 10
    save_every: int | None = None
    save_every_minutes: float | None = 10.0
    keep_last: int = 2
    fit: bool = False
    best: str | None = None
    patience: int | None = None
    report_split: str | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        least = {"epochs": 1, "batch_size": 1, "chunk_size": 1, "log_every": 1, "save_every": 1}
        least |= {"patience": 1, "learning_rate_batch": 1, "warmup_epochs": 0}
        least |= {"num_processes": 1, "warmup_steps": 0, "num_workers": 0, "weight_decay": 0}
        least |= {"keep_last": 1, "save_every_minutes": 0}
        for name, bound in least.items():
            if (value := getattr(self, name)) is not None and not value >= bound:
                raise ValueError(f"trainer.{name} must be at least {bound}; got {value}")
        for name in ("learning_rate", "max_grad_norm", "timeout_minutes"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ValueError(f"trainer.{name} must be above 0; got {value}")
        for name, value in self.part_rates.items():
            if not isinstance(value, int | float) or not value > 0:
                raise ValueError(
                    f"trainer.part_learning_rates.{name} must be a number above 0; got {value!r}"
                )
        self._check_sane()
        self._check_schedule()
        if self.patience is not None and self.best == LAST:
            raise ValueError(
                f"trainer.patience={self.patience} waits for a better result, but"
                " trainer.best=last compares none; name a result or set trainer.patience=null"
            )
        if self.decay not in DECAYS:
            raise ValueError(
                f"trainer.decay: unknown {self.decay!r}; choose from {', '.join(DECAYS)}"
            )

    def _check_sane(self) -> None:
        """Refuse numbers that are in range but would destroy any model."""
        for key, value in dataclasses.asdict(self).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"trainer.{key} must be a finite number; got {value}")
        rates = {f"part_learning_rates.{name}": rate for name, rate in self.part_rates.items()}
        rates = {"learning_rate": self.learning_rate, **rates}
        for key, rate in rates.items():
            if not rate * self.rate_factor <= HIGHEST_RATE:
                scaled = "" if self.rate_factor == 1 else f" x {self.rate_factor:g} for the batch"
                raise ValueError(
                    f"trainer.{key} must be at most {HIGHEST_RATE:g}, as no model learns at a"
                    f" higher one; got {rate:g}{scaled} (fusion find-lr recommends one)"
                )
        if self.weight_decay > HIGHEST_RATE:
            raise ValueError(
                f"trainer.weight_decay must be at most {HIGHEST_RATE:g}; got {self.weight_decay:g}"
            )

    def _check_schedule(self) -> None:
        if not 0 <= self.momentum < 1:
            raise ValueError(f"trainer.momentum must be from 0 to below 1; got {self.momentum}")
        if self.momentum and self.optimizer != SGD:
            raise ValueError(
                f"trainer.momentum={self.momentum} is of sgd, but trainer.optimizer is"
                f" {self.optimizer}; take sgd or leave momentum out"
            )
        if self.nesterov and not self.momentum:
            raise ValueError("trainer.nesterov=true needs trainer.momentum, such as 0.9")
        if (self.schedule == STEPS) != bool(self.milestones):
            raise ValueError(
                "trainer.schedule=steps and trainer.milestones, epochs such as [20, 40], need each"
                f" other; got {self.schedule} and {self.milestones}"
            )
        ends = [0, *(self.milestones or ())]
        numbers = all(isinstance(n, int | float) and not isinstance(n, bool) for n in ends)
        if not numbers or not all(a < b for a, b in itertools.pairwise(ends)):
            raise ValueError(
                "trainer.milestones must be ascending epochs above 0, such as [20, 40]; got"
                f" {self.milestones}"
            )
        if self.warmup_epochs is not None and self.warmup_steps:
            raise ValueError(
                f"trainer.warmup_steps={self.warmup_steps} and trainer.warmup_epochs="
                f"{self.warmup_epochs:g} are two warm-ups; leave one out"
            )

    @property
    def part_rates(self) -> Mapping[str, float]:
        """The highest learning rate of each part that has its own."""
        return flatten(self.part_learning_rates or {})

    @property
    def rate_factor(self) -> float:
        """What all learning rates are multiplied by, see ``learning_rate_batch``."""
        return self.batch_size / (self.learning_rate_batch or self.batch_size)

    def make_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Make the optimizer of a model's parameters."""
        parameters: Any = model.parameters()
        if self.part_rates or self.decay != "all":
            rates = {part: rate * self.rate_factor for part, rate in self.part_rates.items()}
            parameters = make_groups(model.named_parameters(), rates, self.decay == "all")
        highest, momentum = self.learning_rate * self.rate_factor, (self.momentum, self.nesterov)
        return make_optimizer(self.optimizer, parameters, highest, self.weight_decay, *momentum)

    def make_schedule(self, optimizer: torch.optim.Optimizer, steps_per_epoch: int) -> LambdaLR:
        """Make the schedule of the learning rates of all epochs."""
        return make_schedule(
            self.schedule,
            optimizer,
            self.steps_of_warmup(steps_per_epoch),
            self.epochs * steps_per_epoch,
            self.epochs,
            self.milestones or (),
        )

    def steps_of_warmup(self, steps_per_epoch: int) -> int:
        """Return how many steps the warm-up takes."""
        if self.warmup_epochs is None:
            return self.warmup_steps
        return round(self.warmup_epochs * steps_per_epoch)
