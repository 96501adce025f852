"""The learning rate range test of Smith, arXiv:1506.01186, held against a control.

The learning rate grows exponentially from step to step. The loss of each batch is compared with
that of the same batch in a control run, where the tested part does not learn. Their difference, the
gain, shows neither how batches differ nor what other parts have learnt.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fusion.tokens import Batch
from fusion.training.log import RunLog
from fusion.training.trainer import Trainer

LOWEST, HIGHEST = 1e-7, 10.0  # learning rates
WORSE = 0.05  # share of the control's loss; a run that is worse by more is stopped
REST = ""  # the part of the parameters that belong to no other part

Rates = Mapping[str, float]  # of each part


def growing_rates(steps: int, low: float = LOWEST, high: float = HIGHEST) -> list[float]:
    """Return ``steps`` learning rates from ``low`` to ``high``, each the same multiple of the last.

    Raises:
        ValueError: these are fewer than two.
    """
    if steps < 2:
        raise ValueError(f"a range test needs at least 2 steps; got {steps}")
    return [low * (high / low) ** (step / (steps - 1)) for step in range(steps)]


class RangeTest:
    """Runs with the model, the loss and the batches of a trainer; each restores all it changed.

    Args:
        trainer: not used yet, with a rate of its own for each part that is to be tested.
        steps: how many steps are planned in all, for the progress bar.
    """

    def __init__(self, trainer: Trainer, steps: int) -> None:
        self.trainer = trainer
        self._start = copy.deepcopy(self._state())
        trainer.log = RunLog(None, trainer.accelerator, steps, 0, 0, "find-lr")

    def run(
        self, repetition: int, rates: Sequence[Rates], control: Sequence[float] | None = None
    ) -> list[float]:
        """Train with other rates in each step; return the loss after each step.

        Runs of the same repetition see the same batches and the same random numbers. A run ends
        early when its loss is not finite, or so much above that of the control that more than the
        best gain so far is lost.
        """
        trainer, losses, best = self.trainer, [], 0.0
        trainer.model.train()
        try:
            for number, batch in enumerate(self._batches(repetition)):
                self._set(rates[min(number, len(rates) - 1)])
                value = trainer.take_step(batch)[0].item()
                trainer.log.step(trainer.settings.batch_size)
                if not number:
                    continue
                losses.append(value)
                stops = not math.isfinite(value)
                if control is not None and not stops:
                    same = control[number - 1]
                    best = max(best, same - value)
                    stops = value - same > best + WORSE * abs(same)
                if trainer.step.agreement.gather(stops)[0] or number == len(rates):
                    break
        finally:
            self._restore()
        return losses

    def close(self) -> None:
        """End the progress bar."""
        self.trainer.log.close()

    def _batches(self, repetition: int) -> Iterator[Batch]:
        """Read batches without end; those of a repetition are of epochs of their own."""
        trainer = self.trainer
        trainer.epoch, trainer.batch = 1_000_000 * repetition, 0
        while True:
            yield from trainer.rest_of_epoch()
            trainer.train_set.end_epoch()
            trainer.epoch += 1

    def _set(self, rates: Rates) -> None:
        for group in self.trainer.optimizer.param_groups:
            group["lr"] = rates.get(group.get("part", REST), 0.0)  # 0: an empty group

    def _state(self) -> dict[str, Any]:
        trainer = self.trainer
        scaler = trainer.accelerator.scaler
        return {
            "model": trainer.unwrapped.state_dict(),
            "optimizer": trainer.optimizer.state_dict(),
            "loss": trainer.loss.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else None,
        }

    def _restore(self) -> None:
        trainer, start = self.trainer, copy.deepcopy(self._start)  # an optimizer keeps what it gets
        trainer.unwrapped.load_state_dict(start["model"])
        trainer.optimizer.load_state_dict(start["optimizer"])
        trainer.loss.load_state_dict(start["loss"])
        if start["scaler"]:
            trainer.accelerator.scaler.load_state_dict(start["scaler"])
        trainer.epoch = trainer.batch = 0
