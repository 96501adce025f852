"""The main job, from a config to a report: what joins models with data, training and evaluation."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import accelerate
import torch
from accelerate import Accelerator
from torch import nn

from fusion.checkpoint import find_checkpoint, load_checkpoint, load_weights, save_checkpoint
from fusion.config import ConfigError, check, choose, load_config
from fusion.data.clips import CaptionedVideos, Clips
from fusion.data.collate import collate
from fusion.data.datasets import DATASETS
from fusion.evaluation.examples import find_examples
from fusion.evaluation.gallery import EVENLY_CHOSEN
from fusion.evaluation.metrics import flatten_metrics
from fusion.evaluation.report import write_report
from fusion.evaluation.retrieval import (
    Embedded,
    describe_evaluation,
    embed,
    format_table,
    rank_directions,
    retrieval_table,
)
from fusion.files import write_atomically
from fusion.losses import LOSSES
from fusion.models import MODELS, TEXT_ENCODERS
from fusion.training.folder import RunFolder
from fusion.training.launch import end_processes, make_accelerator
from fusion.training.log import read_metrics, tracker_config
from fusion.training.trainer import Settings, Trainer

Builders = dict[str, Callable[..., Any]]


def evaluation_settings(batch_size: int = 256, queries_in_report: int = 8) -> dict[str, int]:
    """The ``evaluation`` section of a config.

    Args:
        batch_size: clips embedded at a time by one process; it changes the speed alone.
        queries_in_report: number of queries in the report's gallery.
    """
    return {"batch_size": batch_size, "queries_in_report": queries_in_report}


def check_config(config: Mapping[str, Any]) -> Builders:
    """Check every section against what it builds, before anything slow begins.

    Returns:
        For each section what builds its object.

    Raises:
        ConfigError: a name, a key or a value is wrong.
    """
    check("trainer", config["trainer"], Settings)
    check("evaluation", config["evaluation"], evaluation_settings)
    return {
        "data": choose("data", config["data"], DATASETS),
        "text_encoder": choose(
            "text_encoder",
            config["text_encoder"],
            {name: encoder.train for name, encoder in TEXT_ENCODERS.items()},
            given=["sentences", "seed"],
        ),
        "model": choose("model", config["model"], MODELS),
        "loss": choose("loss", config["loss"], LOSSES, given=["modalities"]),
    }


def train(config: Mapping[str, Any]) -> None:
    """Train as a config says, evaluate the best checkpoint and write the report.

    Raises:
        ValueError: the config, the data or the run's folder cannot be used.
        Stopped: a signal ended the run; its state is saved.
    """
    clock = Clock()
    builders = check_config(config)
    torch.manual_seed(config["seed"])
    model = builders["model"]()
    loss = builders["loss"](modalities=model.modalities)
    if lacking := sorted(set(getattr(loss, "combinations", ())) - set(model.combinations)):
        raise ConfigError(
            f"loss.terms needs the combination {lacking[0]!r}, which model.combinations lacks"
        )
    settings = Settings(**config["trainer"])
    output = Path(config["output"])
    accelerator = make_accelerator(settings.mixed_precision, output)
    folder = RunFolder(output, config)
    goes_on = _claim(folder, accelerator)
    with clock("corpus"), accelerator.local_main_process_first():
        source: CaptionedVideos = builders["data"]()
    with clock("features"), accelerator.local_main_process_first():
        source.extract()
        if goes_on:
            text_encoder = load_checkpoint(folder.last)[1]
        else:
            text_encoder = builders["text_encoder"](
                sentences=source.texts("train"), seed=config["seed"]
            )
        train_set, validation_set = (source.clips(s, text_encoder) for s in ("train", "validation"))
    _compare_widths(config["model"], train_set)
    accelerator.init_trackers("tensorboard", tracker_config(config))
    embed_with = partial(
        embed,
        collate=collate,
        accelerator=accelerator,
        batch_size=evaluation_settings(**config["evaluation"])["batch_size"],
    )

    def evaluate_epoch(trained: nn.Module) -> dict[str, float]:
        embedded = embed_with(trained, validation_set)
        table = retrieval_table(rank_directions(embedded), len(embedded.ids), intervals=False)
        return flatten_metrics(table)

    trainer = Trainer(
        model=model,
        loss=loss,
        train_set=train_set,
        collate=collate,
        settings=settings,
        seed=config["seed"],
        accelerator=accelerator,
        folder=folder,
        write_model=lambda path, trained: save_checkpoint(path, trained, config, text_encoder),
        evaluate=evaluate_epoch,
    )
    if goes_on:
        trainer.resume()
    with clock("training"):
        trainer.fit()
    best = trainer.unwrapped
    load_weights(best, folder.best)
    if "test" in source.splits:
        with clock("report"):
            test_set = source.clips("test", text_encoder)
            embedded = embed_with(best, test_set)
            if accelerator.is_main_process:
                _conclude(config, source, test_set, embedded, best, folder, clock)
    folder.release()
    end_processes(accelerator, trainer.model, trainer.optimizer)


def evaluate(path: str | Path, chosen: str | None, json_path: str | Path | None) -> dict[str, Any]:
    """Evaluate a checkpoint and print the table.

    Args:
        path: folder of a run or of a checkpoint.
        chosen: a split of the data it was trained on (``test`` if not given), or a config whose
            data, its test split, is taken instead.
        json_path: file to write the result to; none if not given.

    Returns:
        The result, as in the JSON file.

    Raises:
        ValueError: there is no such checkpoint, split or config, or data cannot be read.
    """
    model, text_encoder, config = load_checkpoint(find_checkpoint(path))
    split = chosen or "test"
    if chosen and chosen.endswith((".yaml", ".yml")):
        config, split = config | {"data": load_config(chosen)["data"]}, "test"
    builders = check_config(config)
    accelerator = make_accelerator(config["trainer"].get("mixed_precision"), None)
    with accelerator.local_main_process_first():
        source: CaptionedVideos = builders["data"]()
        clips = source.clips(split, text_encoder)
    _compare_widths(config["model"], clips)
    settings = evaluation_settings(**config["evaluation"])
    model = accelerator.prepare_model(model, evaluation_mode=True)
    embedded = embed(model, clips, collate, accelerator, settings["batch_size"])
    result = _result(source, split, embedded)
    if accelerator.is_main_process:
        print(format_table(result))
        if json_path:
            write_atomically(json_path, json.dumps(result, indent=1))
    end_processes(accelerator, model)
    return result


class Clock:
    """Adds up the seconds that the parts of a job take."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._start = time.perf_counter()

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Count the body of the ``with`` as a part of the job."""
        start = time.perf_counter()
        yield
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - start

    def __str__(self) -> str:
        """Give the parts and the whole."""
        whole = time.perf_counter() - self._start
        parts = ", ".join(f"{part} {seconds:.0f} s" for part, seconds in self.seconds.items())
        return f"{parts}; {whole:.0f} s in all"


def _claim(folder: RunFolder, accelerator: Accelerator) -> bool:
    goes_on = [folder.claim() if accelerator.is_main_process else False]
    accelerate.utils.broadcast_object_list(goes_on)
    return goes_on[0]


def _compare_widths(model: Mapping[str, Any], clips: Clips) -> None:
    clip = clips[0]
    for name, spec in model.get("modalities", {}).items():
        if name not in clip:
            known = ", ".join(key for key in clip if key != "id")
            raise ConfigError(f"the data has no modality {name!r} of model.modalities, but {known}")
        width = clip[name].shape[-1]
        if "dim" in spec and spec["dim"] != width:
            raise ConfigError(
                f"model.modalities.{name}.dim is {spec['dim']}, but the data's features are {width}"
                " wide"
            )


def _result(source: CaptionedVideos, split: str, embedded: Embedded) -> dict[str, Any]:
    table = retrieval_table(rank_directions(embedded), len(embedded.ids))
    return describe_evaluation(
        split, source.protocol(split), embedded, table, source.ceiling(split)
    )


def _conclude(
    config: Mapping[str, Any],
    source: CaptionedVideos,
    test_set: Clips,
    embedded: Embedded,
    model: nn.Module,
    folder: RunFolder,
    clock: Clock,
) -> None:
    result = _result(source, "test", embedded)
    write_atomically(folder.path / "results.json", json.dumps(result, indent=1))
    number = evaluation_settings(**config["evaluation"])["queries_in_report"]
    parameters = sum(p.numel() for p in model.parameters())
    write_report(
        folder.path / "report.html",
        title=folder.path.name,
        results=[result],
        metrics=read_metrics(folder.metrics),
        gallery=find_examples(embedded, test_set, number),
        gallery_note=EVENLY_CHOSEN,
        facts={
            "model": f"{config['model']['name']}, {parameters:,} parameters",
            "seed": str(config["seed"]),
            "time": str(clock),
            "batch size": str(config["trainer"]["batch_size"]),
            "versions": f"torch {torch.__version__}, Python {platform.python_version()}",
            "config": str(folder.path / "config.yaml"),
        },
    )
    print(format_table(result))
    print(f"\ntime      {clock}\nreport    {folder.path / 'report.html'}")
