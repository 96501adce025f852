"""How to train: the ``trainer`` section of a config."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to train; the ``trainer`` section of a config.

    Attributes:
        epochs: passes over the training set.
        batch_size: clips in a step, over all processes; whatever the memory.
        chunk_size: the most clips that are in memory at a time on one process; it changes memory
            and speed, never the result. null for as many as are likely to fit. Either way, chunks
            are halved when memory runs out.
        learning_rate: the highest that is reached.
        optimizer: one of :data:`fusion.training.optim.OPTIMIZERS`.
        schedule: one of :data:`fusion.training.optim.SCHEDULES`.
        warmup_steps: steps until the learning rate is at its highest.
        weight_decay: of the optimizer.
        max_grad_norm: longer gradients are clipped; null for never.
        mixed_precision: ``no``, ``fp16`` or ``bf16``; what the launcher says if null.
        compile: fuse what can be fused with ``torch.compile``; slow to start, then faster.
        num_workers: processes that load data, for each process that trains.
        log_every: steps between two rows of ``metrics.jsonl``.
        save_every: steps between two checkpoints; at the end of each epoch there is one anyway.
        best: which result of the evaluation picks the best checkpoint, larger is better; the first
            one if null.

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
    max_grad_norm: float | None = None
    mixed_precision: str | bool | None = None
    compile: bool = False
    num_workers: int = 0
    log_every: int = 10
    save_every: int | None = None
    best: str | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        least = {"epochs": 1, "batch_size": 1, "chunk_size": 1, "log_every": 1, "save_every": 1}
        least |= {"warmup_steps": 0, "num_workers": 0, "weight_decay": 0}
        for name, bound in least.items():
            if (value := getattr(self, name)) is not None and not value >= bound:
                raise ValueError(f"trainer.{name} must be at least {bound}; got {value}")
        for name in ("learning_rate", "max_grad_norm"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ValueError(f"trainer.{name} must be above 0; got {value}")
