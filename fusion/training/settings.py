"""How to train: the ``trainer`` section of a config."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from fusion.config import flatten

LAST = "last"  # as Settings.best: no result is compared
DECAYS = ("all", "matrices")


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
        part_learning_rates: the same for parts of the model, by the beginning of their parameters'
            names, such as ``{encoders.audio: 1.0e-5}``. The longest name that fits wins. All rates
            have the same warm-up and schedule.
        optimizer: one of :data:`fusion.training.optim.OPTIMIZERS`.
        schedule: one of :data:`fusion.training.optim.SCHEDULES`.
        warmup_steps: steps until the learning rate is at its highest.
        weight_decay: of the optimizer.
        decay: which parameters ``weight_decay`` is for: ``all``; or ``matrices``, which leaves out
            biases, norms and single tokens (tensors without two dimensions longer than one).
        max_grad_norm: gradients with a larger norm are clipped; null: never.
        mixed_precision: ``no``, ``fp16`` or ``bf16``; null: what the launcher says.
        compile: use ``torch.compile`` for parts of the model; slow to start, then faster.
        num_workers: processes that load data, for each process that trains.
        num_processes: how many processes must run; a launch of another number is an error. null:
            any number.
        log_every: steps between two rows of ``metrics.jsonl``; the end of an epoch has one too.
        save_every: steps between two checkpoints, besides the one at the end of each epoch.
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
    optimizer: str = "adam"
    schedule: str = "cosine"
    warmup_steps: int = 0
    weight_decay: float = 0.0
    decay: str = "all"
    part_learning_rates: dict[str, Any] | None = None
    max_grad_norm: float | None = None
    mixed_precision: str | bool | None = None
    compile: bool = False
    num_workers: int = 0
    num_processes: int | None = None
    log_every: int = 10
    save_every: int | None = None
    fit: bool = False
    best: str | None = None
    patience: int | None = None
    report_split: str | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        least = {"epochs": 1, "batch_size": 1, "chunk_size": 1, "log_every": 1, "save_every": 1}
        least |= {"patience": 1}
        least |= {"num_processes": 1, "warmup_steps": 0, "num_workers": 0, "weight_decay": 0}
        for name, bound in least.items():
            if (value := getattr(self, name)) is not None and not value >= bound:
                raise ValueError(f"trainer.{name} must be at least {bound}; got {value}")
        for name in ("learning_rate", "max_grad_norm"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ValueError(f"trainer.{name} must be above 0; got {value}")
        for name, value in self.part_rates.items():
            if not isinstance(value, int | float) or not value > 0:
                raise ValueError(
                    f"trainer.part_learning_rates.{name} must be a number above 0; got {value!r}"
                )
        if self.patience is not None and self.best == LAST:
            raise ValueError(
                f"trainer.patience={self.patience} waits for a better result, but"
                " trainer.best=last compares none; name a result or set trainer.patience=null"
            )
        if self.decay not in DECAYS:
            raise ValueError(
                f"trainer.decay: unknown {self.decay!r}; choose from {', '.join(DECAYS)}"
            )

    @property
    def part_rates(self) -> Mapping[str, float]:
        """The highest learning rate of each part that has its own."""
        return flatten(self.part_learning_rates or {})
