"""What a finished run took, from its own log; and the rate of a device that follows from it."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fusion.checkpoint import CONFIG
from fusion.config import ConfigError, load_config
from fusion.files import num_cores
from fusion.plan.count import Counts
from fusion.plan.machine import Machine
from fusion.plan.predict import Plan
from fusion.plan.together import measure_together
from fusion.plan.work import measure_rates
from fusion.training.log import read_metrics


class Measured(NamedTuple):
    """What a run took; its first row, in which it warms up, does not count."""

    config: Mapping[str, Any]  # that it was trained with
    devices: int
    step: float  # seconds, the median
    reading_share: float  # of its steps, the median
    clips: int  # of an epoch, those of whole batches
    on_cpu: bool
    threads: int  # of each process


def read_run(folder: str | Path) -> Measured:
    """Read the log of a run.

    Raises:
        ConfigError: there is none, or it is too short.
    """
    folder = Path(folder)
    if not (folder / CONFIG).exists():
        raise ConfigError(f"there is no run in {folder}: no {CONFIG}; name the folder of a run")
    config = load_config(folder / CONFIG, own=False)
    rows = [row for row in read_metrics(folder / "metrics.jsonl") if row["event"] == "train"]
    if len(rows) < 3:
        raise ConfigError(
            f"{folder} has {len(rows)} rows of training in its log, and 3 are needed; train longer,"
            " or set trainer.log_every=1"
        )
    speed = statistics.median(row["clips_per_second"] for row in rows[1:])
    share = statistics.median(row["reading_share"] for row in rows[1:])
    batch = config["trainer"]["batch_size"]
    first = [row["step"] for row in rows if row["epoch"] == rows[0]["epoch"]]
    try:
        cost = json.loads((folder / "cost.json").read_text())
        devices, device = cost["processes"], str(cost.get("device"))
        threads = int(cost.get("threads", 1))
    except (OSError, ValueError, KeyError):
        raise ConfigError(
            f"{folder} has no cost.json that says on how many processes it was trained; let the"
            " run end"
        ) from None
    on_cpu = device.startswith("cpu")
    return Measured(config, devices, batch / speed, share, max(first) * batch, on_cpu, threads)


def machine_like(run: Measured, machine: Machine, plan: Callable[[Machine], Plan]) -> Machine:
    """Give a machine the rate that a device had in a run; ``plan`` predicts that run.

    Raises:
        ConfigError: the run was on several devices, whose communication would count as arithmetic.
    """
    if run.devices != 1:
        raise ConfigError(
            f"--like: the run was on {run.devices} devices; name one on a single device, so that"
            " its time is that of arithmetic"
        )
    alone = dataclasses.replace(machine, devices=1)
    flop = plan(alone).flop
    rate = flop / (run.step * (1 - run.reading_share))
    # The update of the weights is part of the measured time.
    return dataclasses.replace(
        machine, tflops=rate / 1e12, utilisation=1.0, memory_tbps=machine.memory_tbps * 1e6
    )


def read_like(run: Measured, machine: Machine) -> Machine:
    """Give a machine the speed at which a run without workers read its clips.

    Processes that share a core read more slowly.
    """
    waited = run.step * run.reading_share
    if not waited or run.config["trainer"].get("num_workers") or machine.clips_per_core:
        return machine
    of_core = min(1.0, num_cores() / machine.in_a_machine)
    rate = of_core * run.config["trainer"]["batch_size"] / waited
    return dataclasses.replace(machine, clips_per_core=rate)


def adjust(
    machine: Machine,
    ours: tuple[Counts, int],
    theirs: tuple[Counts, int],
    threads: int = 1,
    links: bool = True,
) -> Machine:
    """Adjust the rate of a CPU, measured with one process and another model, to what is planned.

    Several processes of this machine share its cores and its memory, so they are measured together.

    Args:
        machine: with the rate of ``theirs``.
        ours: counts of the model, and the clips of a step on a device.
        theirs: those of the run that the rate is from.
        threads: of that run; the processes of the plan share them, and have one each at least.
        links: whether to set how fast processes exchange tensors, too.
    """
    alone = rates = measure_rates(threads)
    if machine.in_a_machine > 1:
        count = machine.in_a_machine
        rates, latency, link = measure_together(count, max(1, threads // count))
        if links:
            machine = dataclasses.replace(machine, latency=latency, local_gbps=8e-9 * link)
    each = ours[0].seconds(ours[1], rates) / (ours[1] * ours[0].step_flop)
    other = theirs[0].seconds(theirs[1], alone) / (theirs[1] * theirs[0].step_flop)
    return dataclasses.replace(machine, tflops=machine.tflops * other / each)


def compare(run: Measured, plan: Plan) -> dict[str, float]:
    """Return what was predicted, what was measured, and the one divided by the other."""
    return {
        "predicted_step_seconds": plan.step,
        "measured_step_seconds": run.step,
        "predicted_by_measured": plan.step / run.step,
        "measured_reading_share": run.reading_share,
    }
