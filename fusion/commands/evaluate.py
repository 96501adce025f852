"""Evaluate a checkpoint."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from fusion.arithmetic import choose_arithmetic
from fusion.checkpoint import check_recipe, find_checkpoint, load_model, read_config, read_recipe
from fusion.commands.cost import describe_run
from fusion.config import ConfigError, change_config, load_config
from fusion.distributed import TIMEOUT_MINUTES
from fusion.files import write_atomically
from fusion.recipes import find_config
from fusion.report.run_page import write_report
from fusion.report.runs import add_missing, add_model
from fusion.report.tables import format_table
from fusion.tasks import SPLITS, Evaluation, complete_result, make_task, tested_as
from fusion.training.launch import AUTO, end_processes, main_first, make_accelerator
from fusion.training.log import read_metrics


def evaluate(
    path: str | Path,
    chosen: str | None,
    json_path: str | Path | None,
    overrides: Iterable[str] = (),
    quiet: bool = False,
    trust: bool = False,
    missing: Sequence[str] = (),
    direction: str | None = None,
    report: str | Path | None = None,
) -> dict[str, Any] | None:
    """Evaluate a checkpoint and print the table.

    Args:
        path: folder of a run or of a checkpoint.
        chosen: a split of the model's own data (None: ``test``), or a config with another test,
            which needs only the section ``data``: the rest is as in training.
        json_path: file to write the result to, and beside it ``FILE.npz`` with the scores of each
            query, so that it can be compared; None: no file.
        overrides: changes to the config, such as ``data.protocol=all``.
        quiet: print nothing.
        trust: whether to import what the config of the checkpoint names by import path.
        missing: modalities to take away from more and more clips; the curves are also added to the
            results and the report of a run, if it is evaluated on the test of its own data.
        direction: of these curves, see :class:`fusion.evaluation.settings.Settings`.
        report: page to write, with the table, charts and examples; None: no page.

    Returns:
        The result, as in the JSON file; None on other processes than the main one.

    Raises:
        ValueError: there is no such checkpoint, split or config, or data cannot be read.
    """
    if json_path and Path(json_path).suffix == ".npz":
        raise ConfigError(
            f"--json {json_path}: scores go to a file .npz; name the result FILE.json"
        )
    if report and Path(report).suffix.lower() != ".html":
        raise ConfigError(f"--report {report}: the report is a page; name a file .html")
    overrides = list(overrides)
    config, split, own_first = _choose_test(read_config(path, trust), chosen, overrides)
    asked = {"missing": list(missing) or None, "missing_direction": direction}
    config["evaluation"] |= {key: value for key, value in asked.items() if value is not None}
    task = make_task(config | {"trust": trust})
    encoders = task.open_encoders(find_checkpoint(path), own_first)
    accelerator = make_accelerator(
        config["trainer"].get("mixed_precision", AUTO),
        None,
        timeout_minutes=config["trainer"].get("timeout_minutes", TIMEOUT_MINUTES),
    )
    arithmetic = choose_arithmetic(accelerator.device.type, accelerator.mixed_precision)
    with main_first(accelerator, "reading the data"):
        task.open_data()
        check_recipe(read_recipe(path), task.recipe(), path)
        clips = task.clips(split)
    # The model comes last, as it takes longest: mistakes in the data are found before.
    changes = config["evaluation"].get("model")
    model = accelerator.prepare_model(load_model(path, changes, trust), evaluation_mode=True)
    evaluation = task.evaluate(model, clips, split, accelerator)
    if evaluation is not None:
        evaluation.result["arithmetic"] = arithmetic.as_json()
        if not quiet:
            print(format_table(evaluation.result))
            for name, source in encoders.items():
                print(f"{name:<10}{source}", file=sys.stderr)
        if json_path:
            _write_result(Path(json_path), evaluation, model, config, find_checkpoint(path))
        if report:
            _write_report(Path(report), evaluation, config, path)
        if missing and chosen in (None, "test") and not overrides:
            _add_to_run(Path(path), evaluation, model, config)
    del model
    end_processes(accelerator)
    return evaluation.result if evaluation else None


def _write_result(
    file: Path, evaluation: Evaluation, model: nn.Module, config: dict[str, Any], checkpoint: Path
) -> None:
    parameters = sum(p.numel() for p in model.parameters())
    scores = add_model(evaluation.scores, config, checkpoint, parameters)
    write_atomically(file.with_suffix(".npz"), scores)
    write_atomically(file, json.dumps(evaluation.result, indent=1))


def _write_report(
    file: Path, evaluation: Evaluation, config: Mapping[str, Any], checkpoint: str | Path
) -> None:
    write_report(
        file,
        title=f"{Path(checkpoint).name}: {evaluation.result['table']['title']}",
        results=[evaluation.result],
        metrics=[],
        gallery=evaluation.gallery,
        gallery_note=evaluation.gallery_note,
        facts={"checkpoint": str(checkpoint), "data": str(config["data"].get("name"))},
        further=evaluation.sections,
    )


def _add_to_run(
    folder: Path, evaluation: Evaluation, model: nn.Module, config: Mapping[str, Any]
) -> None:
    """Add curves of missing modalities to the results and the report of a finished run."""
    names = ("results.json", "ranks.npz", "cost.json", "config.yaml")
    if not all((folder / name).is_file() for name in names):
        return  # a checkpoint, or a run that is not finished
    result, new = json.loads((folder / "results.json").read_text("utf-8")), evaluation.result
    if any(result.get(key) != new[key] for key in ("set", "protocol", "gallery", "counted")):
        print(f"curves    not added to {folder}: it was tested on other clips", file=sys.stderr)
        return
    old, curves = result.get("missing") or {}, new["missing"]
    kept = old["modalities"] if old.get("rule") == curves["rule"] else {}
    result["missing"] = curves | {"modalities": kept | curves["modalities"]}
    cost = json.loads((folder / "cost.json").read_text("utf-8"))
    seconds = cost.get("training_seconds")
    time = "training time unknown" if seconds is None else f"training {seconds:.0f} s"
    about = describe_run(model, config, folder, time, cost.get("processes", 1))
    scores = add_missing((folder / "ranks.npz").read_bytes(), evaluation.scores)
    try:
        write_atomically(folder / "ranks.npz", scores)
        write_atomically(folder / "results.json", json.dumps(result, indent=1))
        write_report(
            folder / "report.html",
            title=folder.name,
            results=[complete_result(result)],
            metrics=read_metrics(folder / "metrics.jsonl"),
            gallery=evaluation.gallery,
            gallery_note=evaluation.gallery_note,
            facts=about,
        )
    except OSError as error:
        print(f"curves    not added to {folder}: {error}", file=sys.stderr)
    else:
        print(f"curves    {folder / 'report.html'}", file=sys.stderr)


def _choose_test(
    config: dict[str, Any], chosen: str | None, overrides: list[str]
) -> tuple[dict[str, Any], str, bool]:
    """Return the config of an evaluation, its split, and whether the model's own encoders go first.

    ``config`` is that of the checkpoint.
    """
    split = chosen or "test"
    if split in SPLITS:
        return change_config(config, overrides), split, False
    if not split.endswith((".yaml", ".yml")) and not find_config(split).is_file():
        raise ConfigError(
            f"--set: unknown {chosen!r}; choose from {', '.join(SPLITS)}, or name a config: a YAML"
            " file, which needs only data, or a recipe such as msrvtt/zero_shot"
        )
    other = load_config(split, overrides, config)
    kept = tested_as(config, other, split)
    if (other["text_encoder"] or {}).get("name") == "auto":
        other["text_encoder"] = None  # the checkpoint has one
    sections = ("data", "evaluation", "text_encoder")
    config |= {name: other[name] for name in sections if other[name] is not None}
    config |= {name: other[name] for name in ("max_clips", "max_unknown")} | kept
    own_first = not any(override.startswith("text_encoder") for override in overrides)
    return config, "test", own_first
