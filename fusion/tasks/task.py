"""The part of training and evaluation that depends on the task.

Commands (:mod:`fusion.commands`) do the same for every task: run folder, processes, trainer,
checkpoints, cost, report. A task says which clips are read, which model and loss are trained, how a
split is evaluated, and what the report shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from accelerate import Accelerator
from markupsafe import Markup
from torch import nn

from fusion.config import ConfigError
from fusion.interfaces import Loss, TrainingSet
from fusion.report.gallery import GalleryItem
from fusion.tokens import Batch

SPLITS = ("train", "validation", "test")


class Evaluation(NamedTuple):
    """A split evaluated for the report."""

    result: dict[str, Any]  # ready for JSON; its key table is a fusion.report.layout.Layout
    scores: bytes  # of every query, for paired tests, see fusion.report.runs.pack_scores
    gallery: Sequence[GalleryItem] = ()  # examples for the report
    gallery_note: str = ""  # how they were chosen, one sentence
    sections: Mapping[str, Markup] = {}  # further ones of the report, by heading


class Task(Protocol):
    """A task, made of a config (:func:`fusion.config.load_config`).

    The constructor checks the config and raises :class:`fusion.config.ConfigError`; it reads no
    data and builds no model. The config's section ``text_encoder`` is None if it has none.
    """

    def __init__(self, config: Mapping[str, Any]) -> None: ...

    def build(self) -> tuple[nn.Module, Loss]:
        """Build the model and the loss; the caller has set the seed."""

    def check(self, model: Any, loss: Any, best: str | None) -> None:
        """Raise ConfigError if model, loss and ``trainer.best`` do not fit together."""

    def open_data(self) -> None:
        """Open the data set; render or download what it needs."""

    def extract(self) -> None:
        """Compute the features that are missing."""

    @property
    def splits(self) -> Sequence[str]:
        """Names of the splits of the data, out of ``SPLITS``."""

    def open_encoders(
        self, checkpoint: Path | None, own_first: bool = False
    ) -> Mapping[str, str | Path]:
        """Read the encoders that stay fixed, such as word vectors, from a checkpoint or the config.

        Args:
            checkpoint: whose encoders are taken; None: new ones, trained where they learn.
            own_first: prefer the file of vectors that the checkpoint names to that of the config.

        Returns:
            What each encodes, and where it was read from, for the user; empty if there are none.
        """

    def fit(self, processes: int) -> Mapping[str, Any]:
        """Fill in what the config leaves to the data; return the whole config.

        It is called once the data and the encoders are open; ``processes`` train together.
        """

    def recipe(self) -> Mapping[str, Any] | None:
        """Say how a clip's input is made, ready for JSON; None if it is not known.

        It is saved with each checkpoint, and a checkpoint is not evaluated on other ``features``.
        """

    def save_encoders(self, folder: Path) -> None:
        """Write these encoders into the folder of a checkpoint."""

    def clips(self, split: str) -> TrainingSet:
        """Read a split; raise ValueError if it cannot be read or does not fit the model."""

    def arguments(self, loss: Any) -> Callable[[Batch], Mapping[str, Any]]:
        """Return the function that gives a model's further arguments for some training clips."""

    def measure(self, model: nn.Module, clips: Any, accelerator: Accelerator) -> dict[str, float]:
        """Evaluate clips after an epoch, on every process.

        The numbers are named ``ROW METRIC``, such as ``t->v R@1``, with a row and a metric of the
        layout: so ``trainer.best`` names one, and the report draws their curves.
        """

    def evaluate(
        self, model: nn.Module, clips: Any, split: str, accelerator: Accelerator
    ) -> Evaluation | None:
        """Evaluate the clips of a split for its table and report.

        It is called on every process, as all embed clips; only the main one has a result.
        """


def width_of(clip: Mapping[str, Any], name: str) -> int:
    """Return how wide a clip's features (L, D) of a modality of ``model.modalities`` are.

    Raises:
        ConfigError: the clip lacks them.
    """
    if name not in clip:
        known = ", ".join(key for key in clip if key != "id")
        hint = "; texts need a text_encoder" if name == "text" else ""
        raise ConfigError(
            f"the data has no modality {name!r} of model.modalities, but {known}{hint}"
        )
    return int(clip[name].shape[-1])


def check_widths(model: Mapping[str, Any], clip: Mapping[str, Any]) -> None:
    """Check that a clip's features are as wide as the ``model`` section of a config says.

    Raises:
        ConfigError: a modality has another width, or the clip lacks it.
    """
    for name, spec in model.get("modalities", {}).items():
        if spec is None:
            continue
        width = width_of(clip, name)
        if spec.get("dim") not in (None, width):
            raise ConfigError(
                f"model.modalities.{name}.dim is {spec['dim']}, but the data are {width} wide"
            )
