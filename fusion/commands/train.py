"""The main job, from a config to a report: what joins models with data, training and evaluation."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from typing import Any

import accelerate
import torch
from accelerate import Accelerator
from torch import nn

from fusion.builders import check_config, evaluation_settings
from fusion.checkpoint import CheckpointError, find_checkpoint, load_weights, save_checkpoint
from fusion.commands.cost import describe_cost, peak_memory
from fusion.commands.evaluate import (
    compare_widths,
    describe_result,
    embed_bank,
    embed_clips,
    find_text_encoder,
)
from fusion.config import ConfigError
from fusion.data.datasets.collate import collate
from fusion.data.datasets.source import ClipSet, Source
from fusion.evaluation.embed import Embedded
from fusion.evaluation.metrics import RECALLS, flatten_metrics
from fusion.evaluation.retrieval import rank_directions, retrieval_table
from fusion.files import write_atomically
from fusion.modalities import directions
from fusion.models import TEXT_ENCODERS, compile_parts
from fusion.report.retrieval_gallery import EVENLY_CHOSEN, find_examples
from fusion.report.run_page import write_report
from fusion.report.tables import format_table
from fusion.tokens import Batch
from fusion.training.clock import Clock
from fusion.training.launch import end_processes, make_accelerator
from fusion.training.log import read_metrics, tracker_config
from fusion.training.run_folder import LOCK, RunFolder
from fusion.training.settings import Settings
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
    """One training job: everything that can be checked is checked when it is made.

    Args:
        config: see :func:`fusion.config.load_config`.

    Raises:
        ValueError: the config cannot be used, or fewer processes started than were asked for.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.clock, self.config = Clock(), config
        self.builders = check_config(config)
        self.settings = Settings(**config["trainer"])
        self.evaluation = evaluation_settings(**config["evaluation"])
        with torch.device("meta"):  # without numbers, which take most of the time
            self._build()
        _check_names(self.model, self.loss, self.settings.best)
        self.folder = RunFolder(config["output"], config)
        self.accelerator = make_accelerator(self.settings.mixed_precision, self.folder.path)

    def run(self) -> None:
        """Do it all."""
        goes_on = _claim(self.folder, self.accelerator)
        source = self._prepare_data()
        text_encoder = self._find_text_encoder(source, goes_on)
        train_set = source.clips("train", text_encoder)
        validation_set = None
        if "validation" in source.splits:
            validation_set = source.clips("validation", text_encoder)
        elif self.settings.best:
            raise ConfigError(
                "trainer.best needs a validation split, which the data lacks; set trainer.best=null"
                " to take the last epoch"
            )
        compare_widths(self.config["model"], train_set)
        if split := _split_of_the_table(source):  # what is wrong with it is not to be found later
            compare_widths(self.config["model"], source.clips(split, text_encoder))
        self._build()
        if self.settings.compile:
            compile_parts(self.model)
        if self.config["init"] is not None and not goes_on:
            load_weights(self.model, find_checkpoint(self.config["init"]))
        trainer = Trainer(
            model=self.model,
            loss=self.loss,
            train_set=train_set,
            collate=collate,
            settings=self.settings,
            seed=self.config["seed"],
            accelerator=self.accelerator,
            folder=self.folder,
            write_model=lambda path, m: save_checkpoint(path, m, self.config, text_encoder),
            evaluate=lambda model: self._metrics(model, validation_set),
            arguments=self._arguments,
        )
        if self.accelerator.is_main_process:
            self.folder.begin()
        self.accelerator.init_trackers("tensorboard", tracker_config(self.config))
        if goes_on:
            trainer.resume()
        with self.clock("training"):
            trainer.fit()
        self._conclude(trainer.unwrapped, source, text_encoder, trainer.steps, goes_on)

    def _build(self) -> None:
        torch.manual_seed(self.config["seed"])
        self.model: nn.Module = self.builders["model"]()
        self.loss = self.builders["loss"](modalities=self.model.modalities)

    def _arguments(self, clips: Batch) -> dict[str, Any]:
        read = self.loss.combinations
        return {"combinations": read, "skip_incomplete": True, "seeds": clips.seeds}

    def close(self) -> None:
        """Let go of the folder and of the other processes."""
        self.folder.release()
        del self.model
        end_processes(self.accelerator)

    def _prepare_data(self) -> Source:
        with self.clock("corpus"), self.accelerator.local_main_process_first():
            source: Source = self.builders["data"]()
        with self.clock("features"), self.accelerator.local_main_process_first():
            source.extract()
        return source

    def _find_text_encoder(self, source: Source, goes_on: bool) -> Any:
        spec, init = self.config["text_encoder"], self.config["init"]
        if goes_on:
            return find_text_encoder(self.folder.last, spec)
        if init is not None:
            try:
                find_checkpoint(init)
            except CheckpointError as error:
                raise ConfigError(
                    f"init: {error}; published weights are converted by python tools/convert.py"
                    f" FILE.pth --out {init}"
                ) from None
            return find_text_encoder(init, spec)
        learns = TEXT_ENCODERS[spec["name"]].learns
        texts = source.texts("train") if learns else ()
        return self.builders["text_encoder"](sentences=texts, seed=self.config["seed"])

    def _embed(self, model: nn.Module, clips: ClipSet) -> Embedded:
        return embed_clips(model, clips, self.accelerator, self.evaluation["batch_size"])

    def _metrics(self, model: nn.Module, clips: ClipSet | None) -> dict[str, float]:
        if clips is None:
            return {}
        embedded = self._embed(model, clips)
        ranked, counted = rank_directions(embedded), embedded.num_clips
        return flatten_metrics(retrieval_table(ranked, counted, embedded.captions, intervals=False))

    def _conclude(
        self, model: nn.Module, source: Source, text_encoder: Any, steps: int, goes_on: bool
    ) -> None:
        """Evaluate the best checkpoint on the test clips, or those for validation; report."""
        peak = peak_memory(self.accelerator)
        seconds = None if goes_on else self.clock.seconds["training"]
        load_weights(model, self.folder.best)
        if (split := _split_of_the_table(source)) is None:
            self._report_training(model)
            return
        with self.clock("report"):
            clips = source.clips(split, text_encoder)
            embedded = self._embed(model, clips)
            bank = embed_bank(model, source, text_encoder, self.accelerator, self.evaluation)
            if not self.accelerator.is_main_process:
                return
            rescoring = self.evaluation["rescoring"]
            result, ranks = describe_result(source, split, embedded, rescoring, bank)
            path = self.folder.path
            write_atomically(path / "results.json", json.dumps(result, indent=1))
            write_atomically(path / "ranks.npz", ranks)
            # A run that has one was finished before: evaluating it again is none of its cost.
            if not (goes_on and (path / "cost.json").exists()):
                seen, processes = steps * self.settings.batch_size, self.accelerator.num_processes
                cost = describe_cost(model, clips, seconds, peak, seen, processes)
                write_atomically(path / "cost.json", json.dumps(cost, indent=1))
            write_report(
                path / "report.html",
                title=path.name,
                results=[result],
                metrics=read_metrics(self.folder.metrics),
                gallery=find_examples(embedded, clips, self.evaluation["queries_in_report"]),
                gallery_note=EVENLY_CHOSEN,
                facts=self._facts(model),
            )
        print(format_table(result))
        print(f"\ntime      {self.clock}\nreport    {path / 'report.html'}")

    def _report_training(self, model: nn.Module) -> None:
        """Report without a table: the data has nothing but training clips."""
        if not self.accelerator.is_main_process:
            return
        path = self.folder.path
        metrics = read_metrics(self.folder.metrics)
        write_report(
            path / "report.html",
            title=path.name,
            results=[],
            metrics=metrics,
            gallery=[],
            facts=self._facts(model),
        )
        print(
            f"nothing to evaluate on: the data has training clips alone; the last epoch is in"
            f" {self.folder.best}, for tools/evaluate.py --set CONFIG"
        )
        print(f"\ntime      {self.clock}\nreport    {path / 'report.html'}")

    def _facts(self, model: nn.Module) -> dict[str, str]:
        parameters = sum(p.numel() for p in model.parameters())
        return {
            "model": f"{self.config['model']['name']}, {parameters:,} parameters",
            "seed": str(self.config["seed"]),
            "time": str(self.clock),
            "batch size": str(self.settings.batch_size),
            "processes": str(self.accelerator.num_processes),
            "versions": f"torch {torch.__version__}, Python {platform.python_version()}",
            "config": str(self.folder.path / "config.yaml"),
        }


def _split_of_the_table(source: Source) -> str | None:
    """Choose what a run is evaluated on in the end; nothing if it has training clips alone."""
    return next((split for split in ("test", "validation") if split in source.splits), None)


def _claim(folder: RunFolder, accelerator: Accelerator) -> bool:
    goes_on = [folder.claim() if accelerator.is_main_process else False]
    accelerate.utils.broadcast_object_list(goes_on)
    if not (folder.path / LOCK).exists():
        raise ConfigError(
            f"process {accelerator.process_index} cannot see {folder.path}; all must share its disk"
        )
    if folder.config["resume"] and accelerator.is_main_process:
        print(f"{folder.path}: {'going on' if goes_on[0] else 'no run yet, beginning one'}")
    return goes_on[0]


def _check_names(model: Any, loss: Any, best: str | None) -> None:
    embedded = set(model.combinations)
    if lacking := sorted(set(getattr(loss, "combinations", ())) - embedded):
        raise ConfigError(
            f"loss.terms needs the combination {lacking[0]!r}, which model.combinations lacks;"
            " add it there, or take its terms out by a weight of 0"
        )
    ways = [d for d in directions(model.modalities) if {*d.query, *d.gallery} <= embedded]
    names = [f"{way} R@{k}" for way in ways for k in RECALLS]
    if best is not None and best not in names:
        raise ConfigError(
            f"trainer.best: {best!r} is not evaluated with these modalities and model.combinations;"
            f" choose a direction of {', '.join(map(str, ways))} and a metric of"
            f" {', '.join(f'R@{k}' for k in RECALLS)}"
        )
