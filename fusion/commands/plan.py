"""Say what a training needs of a machine, and how long it takes there."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
from collections.abc import Mapping
from typing import Any

import torch

from fusion.config import ConfigError, check, load_config
from fusion.plan.clip import Clip, clip_of, clips_of, with_classes
from fusion.plan.count import Counts, count
from fusion.plan.machine import Machine
from fusion.plan.measured import Measured, adjust, compare, machine_like, read_like, read_run
from fusion.plan.predict import Plan, predict
from fusion.plan.words import describe, obstacles
from fusion.tasks import make_task
from fusion.training.settings import Settings

UNREAD = ("data_root=not-read", "init=null")  # a plan reads neither data nor weights


def plan(given: argparse.Namespace) -> None:
    """Plan, as the command line says."""
    names = [field.name for field in dataclasses.fields(Machine)]
    wishes = {name: value for name in names if (value := getattr(given, name, None)) is not None}
    machine = Machine(**wishes)
    measured = read_run(given.measured) if given.measured else None
    if measured and wishes.get("devices", measured.devices) != measured.devices:
        raise ConfigError(
            f"--devices {machine.devices}: the run of --measured had {measured.devices}, and is"
            " compared with a plan for as many; leave --devices out, or --measured"
        )
    if measured:
        machine = dataclasses.replace(machine, devices=measured.devices)
    config = _config(given, measured)
    counts, clip = count_config(config, given.words)
    if given.like:
        # It also refuses a batch that cannot be shared out before anything is measured.
        share = predict(counts, clip, config["trainer"], machine, None).share
        links = given.local_gbps is None
        machine = _like(given.like, machine, given.words, (counts, share), clip, links)
    known, evaluated = clips_of(config)
    clips = given.clips or (measured.clips if measured else known)
    evaluated = evaluated if given.evaluated is None else given.evaluated
    made = predict(counts, clip, config["trainer"], machine, clips, evaluated)
    if given.json:
        print(json.dumps(as_json(made, counts, clip, machine, measured)))
        return
    print(describe(made, counts, clip, machine))
    if given.goal_hours:
        print(f"\n{obstacles(made, given.goal_hours)}")
    if measured:
        found = compare(measured, made)
        print(
            f"\nmeasured: {1e3 * found['measured_step_seconds']:.2f} ms a step, of which"
            f" {100 * found['measured_reading_share']:.0f} % waits for clips;"
            f" predicted / measured {found['predicted_by_measured']:.2f}"
        )


def count_config(config: Mapping[str, Any], words: int) -> tuple[Counts, Clip]:
    """Count what the model of a config needs for its longest clip.

    Raises:
        ConfigError: the config cannot be used, or leaves to the data what a plan must know.
        ValueError: a number of the section ``trainer`` is impossible.
    """
    trainer = config["trainer"]
    if trainer.get("fit") and trainer.get("epochs") is None:
        trainer = {**trainer, "epochs": 1}  # they follow from the number of clips
    check("trainer", trainer, Settings)
    Settings(**trainer)  # checks the ranges
    clip = clip_of(config, words)
    task = make_task(with_classes(config))
    with torch.device("meta"):
        model, loss = task.build()
    return count(model, loss, clip), clip


def _config(given: argparse.Namespace, measured: Measured | None) -> Mapping[str, Any]:
    if given.config is None:
        if measured is None:
            raise ConfigError("name a config, such as howto100m/eao, or a run: --measured RUN")
        if given.overrides:
            raise ConfigError("--measured plans the run's own config; name a config to change it")
        return measured.config
    typed = {word.partition("=")[0] for word in given.overrides}
    unread = [word for word in UNREAD if word.partition("=")[0] not in typed]
    return load_config(given.config, [*unread, *given.overrides])


def _like(
    run: str, machine: Machine, words: int, ours: tuple[Counts, int], clip: Clip, links: bool
) -> Machine:
    """Give the machine the rate of a run.

    ``ours``: counts of what is planned, and clips of a step on a device; ``clip``: what is read.
    """
    found = read_run(run)
    counts, other = count_config(found.config, words)
    plan_of = functools.partial(predict, counts, other, found.config["trainer"], clips=None)
    machine = machine_like(found, machine, lambda alone: plan_of(machine=alone))
    if found.on_cpu and clip == other:
        machine = read_like(found, machine)
    theirs = (counts, found.config["trainer"]["batch_size"])
    if not found.on_cpu or (machine.devices == 1 and ours == theirs):
        return machine
    return adjust(machine, ours, theirs, found.threads, links)


def as_json(
    made: Plan, counts: Counts, clip: Clip, machine: Machine, measured: Measured | None
) -> dict[str, Any]:
    """Write a plan, ready for JSON; bytes, operations, seconds and hours."""
    return {
        "machine": dataclasses.asdict(machine),
        "counts": counts._asdict(),
        "stored_bytes_per_clip": clip.stored_bytes,
        "plan": made._asdict() | {"binds": made.binds},
        "epoch_hours": made.epoch_hours,
        "hours": made.hours,
        "measured": compare(measured, made) if measured else None,
    }
