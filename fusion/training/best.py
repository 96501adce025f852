"""The best epoch of a run, and early stopping."""

from __future__ import annotations

import math
from collections.abc import Mapping

from fusion.training.settings import LAST
from fusion.words import number_of


class BestEpoch:
    """Compares the results of epochs; ``score`` is the best, ``waited`` epochs have passed since.

    Args:
        result: the result to compare, larger is better; None: the first; ``last``: the last epoch
            counts as the best.
        patience: epochs without a better result after which training ends; None: it never does.
    """

    def __init__(self, result: str | None, patience: int | None) -> None:
        self.result, self.patience = result, patience
        self.score, self.waited = -math.inf, 0

    def read(self, results: Mapping[str, float], epoch: int) -> tuple[str, float]:
        """Return the name and the value that count of an epoch's results.

        If none counts, these are an empty name and the epoch.

        Raises:
            ValueError: there is no such result, or none to wait for.
        """
        name = self.result or next(iter(results), "")
        if name == LAST or not name:
            if self.patience is not None:
                raise ValueError(
                    "trainer.patience waits for a better result, but the evaluation has none; set"
                    " trainer.patience=null"
                )
            return "", float(epoch)
        if name not in results:
            raise ValueError(
                f"trainer.best: the evaluation has no {name!r}; choose from {', '.join(results)}"
            )
        return name, results[name]

    def add(self, score: float, is_better: bool) -> None:
        """Count an epoch, which is the best so far or not."""
        self.score = score if is_better else self.score
        self.waited = 0 if is_better else self.waited + 1

    @property
    def is_over(self) -> bool:
        """Whether training ends, as patience has run out."""
        return self.patience is not None and self.waited >= self.patience

    def explain(self, epoch: int, epochs: int) -> str:
        """Say why training ends after an epoch of so many."""
        what = self.result or "result of validation"
        return (
            f"ended after epoch {epoch} of {epochs}: no better {what} than {self.score:.1f} in the"
            f" last {number_of(self.waited, 'epoch')} (trainer.patience={self.patience})"
        )
