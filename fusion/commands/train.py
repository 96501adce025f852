"""From a config to a trained model and its report, for any task."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import accelerate
import torch
from accelerate import Accelerator
from torch import nn

from fusion.builders import leaves_text_encoder, settle_text_encoder
from fusion.checkpoint import (
    CheckpointError,
    check_recipe,
    load_weights,
    read_recipe,
    save_checkpoint,
)
from fusion.commands.cost import describe_cost, describe_run, peak_memory
from fusion.commands.initial import find_initial, load_initial
from fusion.config import ConfigError, check
from fusion.data.datasets.dataset import collate
from fusion.data.features.problems import warn
from fusion.files import write_atomically
from fusion.models import compile_parts
from fusion.report.layout import say_small
from fusion.report.run_page import write_report
from fusion.report.tables import format_table
from fusion.tasks import make_task
from fusion.training.launch import end_processes, make_accelerator
from fusion.training.log import Clock, read_metrics, tracker_config
from fusion.training.run_folder import LOCK, RunFolder
from fusion.training.settings import LAST, Settings
from fusion.training.trainer import Trainer


def train(config: Mapping[str, Any]) -> None:
    """Train as a config says, evaluate the best checkpoint and write the report.

    Raises:
        ValueError: the config, the data or the run's folder cannot be used.
        Stopped: a signal ended the run; its state is saved.
    """
    job = Job(config)
    try:
        job.run()
    finally:
        job.close()


class Job:
    """One training job; the constructor checks all that can be checked without reading data.

    Raises:
        ValueError: the config cannot be used, or another number of processes was asked for.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.clock = Clock()
        trainer = config["trainer"]
        if trainer.get("fit") and trainer.get("epochs") is None:
            trainer = {**trainer, "epochs": 1}  # until the number of clips is known
        check("trainer", trainer, Settings)
        self.settings = Settings(**trainer)
        self._open(config if leaves_text_encoder(config) else settle_text_encoder(config))
        self.accelerator = make_accelerator(
            self.settings.mixed_precision, self.folder.path, self.settings.num_processes
        )

    def run(self) -> None:
        """Read the data, train, evaluate, report."""
        if leaves_text_encoder(self.config):  # processes may differ in what they can load
            find = functools.partial(_from_main, self.accelerator)
            self._open(settle_text_encoder(self.config, find))
        resumes = _claim(self.folder, self.accelerator)
        start = self.folder.last if resumes else self._initial()
        with self.clock("corpus"), self.accelerator.local_main_process_first():
            self.task.open_data()
        with self.clock("features"), self.accelerator.local_main_process_first():
            self.task.extract()
        self.task.open_encoders(start)
        self._fit(resumes)
        train_set = self.task.clips("train")
        validation_set = self._validation_clips()
        split = self._report_split()
        if split:  # a mistake in it is found before training
            self.task.clips(split)
        self._build()
        if self.settings.compile:
            compile_parts(self.model)
        if start is not None and not resumes:
            self._compare_recipe(start)
            load_initial(self.model, start, self.config)
        trainer = self._trainer(train_set, validation_set)
        if self.accelerator.is_main_process:
            self.folder.begin()
        self.accelerator.init_trackers("tensorboard", tracker_config(self.config))
        if resumes:
            trainer.resume()
        with self.clock("training"):
            trainer.fit()
        self._conclude(trainer.unwrapped, split, trainer.steps, resumes)

    def close(self) -> None:
        """Unlock the folder and end the processes."""
        self.folder.release()
        del self.model
        end_processes(self.accelerator)

    def _open(self, config: Mapping[str, Any]) -> None:
        """Make the task of a config, and check that its parts fit together."""
        self.config, self.task = config, make_task(config)
        with torch.device("meta"):  # shapes only: values take most of the time
            self._build()
        self.task.check(self.model, self.loss, self.settings.best)
        self.folder = RunFolder(config["output"], config)

    def _compare_recipe(self, start: Path) -> None:
        """Warn if the weights that the run begins with were trained with other features."""
        try:
            check_recipe(read_recipe(start), self.task.recipe(), start)
        except CheckpointError as error:
            warn(f"init      {error}")

    def _trainer(self, train_set: Any, validation_set: Any) -> Trainer:
        recipe = self.task.recipe()

        def measure(model: nn.Module) -> dict[str, float]:
            if validation_set is None:
                return {}
            return self.task.measure(model, validation_set, self.accelerator)

        def write_model(folder: Path, model: nn.Module) -> None:
            save_checkpoint(folder, model, self.config, None, recipe)
            self.task.save_encoders(folder)

        return Trainer(
            model=self.model,
            loss=self.loss,
            train_set=train_set,
            collate=collate,
            settings=self.settings,
            seed=self.config["seed"],
            accelerator=self.accelerator,
            folder=self.folder,
            write_model=write_model,
            evaluate=measure,
            arguments=self.task.arguments(self.loss),
        )

    def _fit(self, resumes: bool) -> None:
        """Fill in what the config leaves to the data; the folder keeps the config as given.

        The checkpoints have the values that were found, and a resumed run must find the same.
        """
        self.config = dict(self.task.fit(self.accelerator.num_processes))
        if resumes:
            self.folder.check_fitted(self.config)
        self.settings = Settings(**self.config["trainer"])

    def _build(self) -> None:
        torch.manual_seed(self.config["seed"])
        self.model, self.loss = self.task.build()

    def _initial(self) -> Path | None:
        return find_initial(self.config["init"]) if self.config["init"] is not None else None

    def _validation_clips(self) -> Any:
        if "validation" in self.task.splits:
            clips = self.task.clips("validation")
            if note := say_small(len(clips)):
                warn(f"validation: {note}")
            return clips
        if self.settings.best not in (None, LAST):
            raise ConfigError(
                "trainer.best needs a validation split, which the data lacks; set trainer.best=last"
                " to take the last epoch"
            )
        return None

    def _report_split(self) -> str | None:
        """Return the split that is evaluated at the end; None: there is none."""
        known = [name for name in ("test", "validation") if name in self.task.splits]
        if (asked := self.settings.report_split) is None:
            return next(iter(known), None)
        if asked not in known:
            have = f"the data has {' and '.join(known)}" if known else "the data has neither"
            raise ConfigError(
                f"trainer.report_split: {asked!r} is not test or validation, or the data lacks it;"
                f" {have}"
            )
        return asked

    def _conclude(self, model: nn.Module, split: str | None, steps: int, resumed: bool) -> None:
        """Evaluate the best checkpoint and write the report."""
        peak = peak_memory(self.accelerator)
        seconds = None if resumed else self.clock.seconds["training"]
        load_weights(model, self.folder.best)
        path, evaluation = self.folder.path, None
        with self.clock("report"):
            if split is not None:
                clips = self.task.clips(split)
                evaluation = self.task.evaluate(model, clips, split, self.accelerator)
            if not self.accelerator.is_main_process:
                return
            if evaluation is not None:
                write_atomically(path / "results.json", json.dumps(evaluation.result, indent=1))
                write_atomically(path / "ranks.npz", evaluation.scores)
                # A resumed run that has a cost was finished before: keep it.
                if not (resumed and (path / "cost.json").exists()):
                    seen = steps * self.settings.batch_size
                    processes = self.accelerator.num_processes
                    cost = describe_cost(model, clips, seconds, peak, seen, processes)
                    write_atomically(path / "cost.json", json.dumps(cost, indent=1))
            write_report(
                path / "report.html",
                title=path.name,
                results=[evaluation.result] if evaluation else [],
                metrics=read_metrics(self.folder.metrics),
                gallery=evaluation.gallery if evaluation else [],
                gallery_note=evaluation.gallery_note if evaluation else "",
                facts=describe_run(
                    model, self.config, path, str(self.clock), self.accelerator.num_processes
                ),
            )
        print(
            format_table(evaluation.result)
            if evaluation
            else "nothing to evaluate on: the data has training clips alone; the last epoch is in"
            f" {self.folder.best}, for fusion evaluate --set CONFIG"
        )
        print(f"\ntime      {self.clock}\nreport    {path / 'report.html'}")


def _claim(folder: RunFolder, accelerator: Accelerator) -> bool:
    """Lock the run's folder; return whether the run continues from a checkpoint there."""
    resumes: bool = _from_main(accelerator, folder.claim)
    if not (folder.path / LOCK).exists():
        raise ConfigError(
            f"process {accelerator.process_index} cannot see {folder.path}; all must share its disk"
        )
    if folder.config["resume"] and accelerator.is_main_process:
        print(f"{folder.path}: {'going on' if resumes else 'no run yet, beginning one'}")
    return resumes


def _from_main(accelerator: Accelerator, find: Callable[[], Any]) -> Any:
    """Return, in every process, what a function returns in the main one."""
    found = [find() if accelerator.is_main_process else None]
    accelerate.utils.broadcast_object_list(found)
    return found[0]
