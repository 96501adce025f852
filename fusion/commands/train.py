"""From a config to a trained model and its report, for any task."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import nn

from fusion.checkpoint import check_checkpoint, load_weights, save_checkpoint
from fusion.commands.cost import describe_cost, describe_run, peak_memory
from fusion.commands.job import Job, from_main
from fusion.config import ConfigError
from fusion.data.features.problems import warn
from fusion.files import write_atomically
from fusion.report.layout import say_small
from fusion.report.run_page import write_report
from fusion.report.tables import format_table
from fusion.signals import ignore_stops
from fusion.training.launch import Stopped
from fusion.training.log import read_metrics, tracker_config
from fusion.training.run_folder import LOCK, RunFolder
from fusion.training.settings import LAST
from fusion.training.trainer import Trainer


def train(config: Mapping[str, Any]) -> None:
    """Train as a config says, evaluate the best checkpoint and write the report.

    Raises:
        ValueError: the config, the data or the run's folder cannot be used.
        Stopped: a signal ended the run; its state is saved.
    """
    training = Training(config)
    try:
        training.run()
    except Stopped as stop:
        ignore_stops()  # a launcher passes on what the terminal has sent already
        raise Stopped(stop.signal, saved=training.folder.last.exists()) from None
    finally:
        training.close()


class Training:
    """One training in the folder of a run; see :class:`fusion.commands.job.Job`."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.job = Job(config, config["output"])
        self.folder = RunFolder(config["output"], config)

    def run(self) -> None:
        """Read the data, train, evaluate, report."""
        job, accelerator = self.job, self.job.accelerator
        job.settle()
        self.folder = RunFolder(job.config["output"], job.config)
        resumes = _claim(self.folder, accelerator)
        start = self.folder.last if resumes else job.initial()
        job.open_data(start)
        job.fit()  # the folder keeps the config as given; checkpoints have what was found
        if resumes:
            self.folder.check_fitted(job.config)
        train_set = job.task.clips("train")
        validation_set = self._validation_clips()
        split = self._report_split()
        if split:  # a mistake in it is found before training
            job.task.clips(split)
        job.build(None if resumes else start)
        trainer = self._trainer(train_set, validation_set)
        if accelerator.is_main_process:
            self.folder.begin()
        accelerator.init_trackers("tensorboard", tracker_config(job.config))
        if resumes:
            trainer.resume()
        with job.clock("training"):
            trainer.fit()
        self._conclude(trainer, split, resumes)

    def close(self) -> None:
        """Unlock the folder and end the processes."""
        self.folder.release()
        self.job.close()

    def _trainer(self, train_set: Any, validation_set: Any) -> Trainer:
        job, recipe = self.job, self.job.task.recipe()

        def measure(model: nn.Module) -> dict[str, float]:
            if validation_set is None:
                return {}
            return job.task.measure(model, validation_set, job.accelerator)

        def write_model(folder: Path, model: nn.Module) -> None:
            save_checkpoint(folder, model, job.config, None, recipe)
            job.task.save_encoders(folder)

        return job.make_trainer(
            train_set,
            job.settings,
            folder=self.folder,
            write_model=write_model,
            evaluate=measure,
        )

    def _validation_clips(self) -> Any:
        if "validation" in self.job.task.splits:
            clips = self.job.task.clips("validation")
            if note := say_small(len(clips)):
                warn(f"validation: {note}")
            return clips
        if (patience := self.job.settings.patience) is not None:
            raise ConfigError(
                f"trainer.patience={patience} needs a validation split, which the data lacks; set"
                " trainer.patience=null"
            )
        if self.job.settings.best not in (None, LAST):
            raise ConfigError(
                "trainer.best needs a validation split, which the data lacks; set trainer.best=last"
                " to take the last epoch"
            )
        return None

    def _report_split(self) -> str | None:
        """Return the split that is evaluated at the end; None: there is none."""
        known = [name for name in ("test", "validation") if name in self.job.task.splits]
        if (asked := self.job.settings.report_split) is None:
            return next(iter(known), None)
        if asked not in known:
            have = f"the data has {' and '.join(known)}" if known else "the data has neither"
            raise ConfigError(
                f"trainer.report_split: {asked!r} is not test or validation, or the data lacks it;"
                f" {have}"
            )
        return asked

    def _conclude(self, trainer: Trainer, split: str | None, resumed: bool) -> None:
        """Evaluate the best checkpoint and write the report."""
        job, model, processes = self.job, trainer.unwrapped, self.job.accelerator.num_processes
        peak = peak_memory(job.accelerator)
        seconds = None if resumed else job.clock.seconds["training"]
        check_checkpoint(self.folder.best)
        load_weights(model, self.folder.best)
        path, evaluation = self.folder.path, None
        with job.clock("report"):
            if split is not None:
                clips = job.task.clips(split)
                evaluation = job.task.evaluate(model, clips, split, job.accelerator)
            if not job.accelerator.is_main_process:
                return
            if evaluation is not None:
                evaluation.result["arithmetic"] = trainer.arithmetic.as_json()
                write_atomically(path / "results.json", json.dumps(evaluation.result, indent=1))
                write_atomically(path / "ranks.npz", evaluation.scores)
                # A resumed run that has a cost was finished before: keep it.
                if not (resumed and (path / "cost.json").exists()):
                    seen = trainer.steps_done * job.settings.batch_size
                    cost = describe_cost(model, clips, seconds, peak, seen, processes)
                    write_atomically(path / "cost.json", json.dumps(cost, indent=1))
            write_report(
                path / "report.html",
                title=path.name,
                results=[evaluation.result] if evaluation else [],
                metrics=read_metrics(self.folder.metrics),
                gallery=evaluation.gallery if evaluation else [],
                gallery_note=evaluation.gallery_note if evaluation else "",
                further=evaluation.sections if evaluation else None,
                facts=describe_run(model, job.config, path, str(job.clock), processes)
                | ({"training": trainer.why_ended} if trainer.why_ended else {}),
            )
        print(
            format_table(evaluation.result)
            if evaluation
            else "nothing to evaluate on: the data has training clips alone; the last epoch is in"
            f" {self.folder.best}, for fusion evaluate --set CONFIG"
        )
        if trainer.why_ended:
            print(f"\ntraining  {trainer.why_ended}", end="")
        print(f"\ntime      {job.clock}\nreport    {path / 'report.html'}")


def _claim(folder: RunFolder, accelerator: Accelerator) -> bool:
    """Lock the run's folder; return whether the run continues from a checkpoint there."""
    resumes: bool = from_main(accelerator, folder.claim)
    if not (folder.path / LOCK).exists():
        raise ConfigError(
            f"process {accelerator.process_index} cannot see {folder.path}; all must share its disk"
        )
    if folder.resumes and accelerator.is_main_process:
        print(f"{folder.path}: {'going on' if resumes else 'no run yet, beginning one'}")
    return resumes
