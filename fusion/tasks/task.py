"""What a job is about: the part of training and evaluation that depends on the task.

A job (:mod:`fusion.commands.train`) does the same for every task: run folder, processes, trainer,
checkpoints, cost, report. A task says which clips are read, which model and loss are trained, how a
split is evaluated, and what the report shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from accelerate import Accelerator
from torch import nn

from fusion.tokens import Batch
from fusion.training.protocols import Loss, TrainingSet


class Evaluation(NamedTuple):
    """A split evaluated for the report.

    Attributes:
        result: the table with all that is needed to read it, ready for JSON; see
            :mod:`fusion.report.tables`.
        scores: an npz file with the result of every query, for paired comparisons; see
            :mod:`fusion.report.comparison`.
        gallery: examples for the report.
        gallery_note: how they were chosen, one sentence.
    """

    result: dict[str, Any]
    scores: bytes
    gallery: Sequence[Any] = ()
    gallery_note: str = ""


class Task(Protocol):
    """A task, made of a config (:func:`fusion.config.load_config`).

    The constructor checks the config and raises :class:`fusion.config.ConfigError`; it reads no
    data and builds no model.

    Attributes:
        text_encoder: saved with each checkpoint; None if the task has none or it is not read yet.
    """

    text_encoder: Any

    def __init__(self, config: Mapping[str, Any]) -> None: ...

    def build(self) -> tuple[nn.Module, Loss]:
        """Build the model and the loss; the caller has set the seed."""

    def check(self, model: Any, loss: Any, best: str | None) -> None:
        """Check that model, loss and ``trainer.best`` fit together.

        Raises:
            ConfigError: they do not.
        """

    def open_data(self) -> None:
        """Open the data set; render or download what it needs."""

    def extract(self) -> None:
        """Compute the features that are missing."""

    @property
    def splits(self) -> Sequence[str]:
        """Names of the splits of the data, out of ``train``, ``validation`` and ``test``."""

    def open_encoders(self, checkpoint: Path | None, own_first: bool = False) -> None:
        """Read or train the encoders that stay fixed in training, such as word vectors.

        Args:
            checkpoint: whose encoders are taken; None: new ones, as the config says.
            own_first: take a file of vectors from the place that the checkpoint names, and from
                the config only where that fails; otherwise the other way round.
        """

    def clips(self, split: str) -> TrainingSet:
        """Read a split and check that its features fit the model.

        Raises:
            ValueError: they do not fit, or data cannot be read.
        """

    def arguments(self, loss: Any) -> Callable[[Batch], Mapping[str, Any]]:
        """Return the function that gives a model's further arguments for some training clips."""

    def measure(self, model: nn.Module, clips: Any, accelerator: Accelerator) -> dict[str, float]:
        """Evaluate clips after an epoch; the numbers are named as in ``trainer.best``."""

    def evaluate(
        self, model: nn.Module, clips: Any, split: str, accelerator: Accelerator
    ) -> Evaluation:
        """Evaluate a split for its table and report; called on every process.

        Args:
            model: on its device.
            clips: those of the split.
            split: its name.
            accelerator: the processes.
        """
