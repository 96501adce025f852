"""What a config trains, made ready step by step: data, model, loss, trainer; for any task."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import accelerate
import torch
from accelerate import Accelerator
from torch import nn

from fusion.builders import leaves_text_encoder, settle_text_encoder
from fusion.checkpoint import CheckpointError, check_recipe, read_recipe
from fusion.commands.initial import find_initial, load_initial
from fusion.config import check
from fusion.data.datasets.dataset import collate
from fusion.data.features.problems import warn
from fusion.interfaces import Loss
from fusion.models import compile_parts
from fusion.models.batchnorm import batch_granularity
from fusion.tasks import make_task
from fusion.training.launch import end_processes, main_first, make_accelerator
from fusion.training.log import Clock
from fusion.training.optim import check_parts
from fusion.training.sampler import check_division
from fusion.training.settings import Settings
from fusion.training.trainer import Trainer


class Job:
    """The parts of one training; the constructor checks all that can be checked without data.

    The methods are called in their order: :meth:`settle`, :meth:`open_data`, :meth:`fit`,
    :meth:`build`, :meth:`make_trainer`; in the end, whatever happened, :meth:`close`.

    Args:
        config: see :func:`fusion.config.load_config`.
        log_folder: for TensorBoard's files; None: nothing is written.

    Raises:
        ValueError: the config cannot be used, or another number of processes was asked for.
    """

    config: Mapping[str, Any]
    model: nn.Module
    loss: Loss

    def __init__(self, config: Mapping[str, Any], log_folder: str | Path | None) -> None:
        self.clock = Clock()
        trainer = config["trainer"]
        if trainer.get("fit") and trainer.get("epochs") is None:
            trainer = {**trainer, "epochs": 1}  # until the number of clips is known
        check("trainer", trainer, Settings)
        self.settings = Settings(**trainer)
        self._open(config if leaves_text_encoder(config) else settle_text_encoder(config))
        self.accelerator = make_accelerator(
            self.settings.mixed_precision,
            log_folder,
            self.settings.num_processes,
            self.settings.timeout_minutes,
        )
        if not self.settings.fit:  # before anything slow begins
            cut = batch_granularity(self.model.train())
            check_division(self.settings.batch_size, self.accelerator.num_processes, cut)

    def settle(self) -> None:
        """Find the text encoder of a config that leaves it open."""
        if leaves_text_encoder(self.config):  # processes may differ in what they can load
            find = functools.partial(from_main, self.accelerator)
            self._open(settle_text_encoder(self.config, find))

    def initial(self) -> Path | None:
        """Find the checkpoint that the config begins with, if it names one."""
        return find_initial(self.config["init"]) if self.config["init"] is not None else None

    def open_data(self, start: Path | None) -> None:
        """Open the data, compute missing features, read the encoders of the checkpoint."""
        with self.clock("corpus"), main_first(self.accelerator, "reading the data"):
            self.task.open_data()
        with self.clock("features"), main_first(self.accelerator, "computing features"):
            self.task.extract()
        self.task.open_encoders(start)

    def fit(self) -> None:
        """Fill in what the config leaves to the data."""
        self.config = dict(self.task.fit(self.accelerator.num_processes))
        self.settings = Settings(**self.config["trainer"])

    def build(self, start: Path | None) -> None:
        """Build model and loss; the weights are those of the checkpoint, if there is one."""
        self._build()
        if self.settings.compile:
            compile_parts(self.model)
        if start is not None:
            self._compare_recipe(start)
            load_initial(self.model, start, self.config)

    def make_trainer(self, train_set: Any, settings: Settings, **further: Any) -> Trainer:
        """Make the trainer; ``further`` are arguments that the command has of its own."""
        return Trainer(
            model=self.model,
            loss=self.loss,
            train_set=train_set,
            collate=collate,
            settings=settings,
            seed=self.config["seed"],
            accelerator=self.accelerator,
            arguments=self.task.arguments(self.loss),
            **further,
        )

    def close(self) -> None:
        """End the processes; the caller must have deleted its trainer."""
        del self.model
        end_processes(self.accelerator)

    def _open(self, config: Mapping[str, Any]) -> None:
        """Make the task of a config, and check that its parts fit together."""
        self.config, self.task = config, make_task(config)
        with torch.device("meta"):  # shapes only: values take most of the time
            self._build()
        self.task.check(self.model, self.loss, self.settings.best)
        if not leaves_text_encoder(config):
            trained = [n for n, p in self.model.named_parameters() if p.requires_grad]
            check_parts(self.settings.part_rates, trained)

    def _build(self) -> None:
        torch.manual_seed(self.config["seed"])
        self.model, self.loss = self.task.build()

    def _compare_recipe(self, start: Path) -> None:
        """Warn if the weights that the run begins with were trained with other features."""
        try:
            check_recipe(read_recipe(start), self.task.recipe(), start)
        except CheckpointError as error:
            warn(f"init      {error}")


def from_main(accelerator: Accelerator, find: Callable[[], Any]) -> Any:
    """Return, in every process, what a function returns in the main one."""
    found = [find() if accelerator.is_main_process else None]
    accelerate.utils.broadcast_object_list(found)
    return found[0]
