"""A plan in words, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fusion.plan.clip import Clip
from fusion.plan.count import Counts
from fusion.plan.machine import Machine
from fusion.plan.predict import Plan
from fusion.report.layout import align
from fusion.words import number_of

GIB, KIB = 2.0**30, 2.0**10


def describe(plan: Plan, counts: Counts, clip: Clip, machine: Machine) -> str:
    """Write what a training needs."""
    parts = [
        _heading(plan, counts, clip, machine),
        _table("memory of a device, GiB", _memory(plan, machine)),
        _table("a step, ms", _times(plan)),
        _table("a device sends in a step, MiB", _sent(plan)) if machine.devices > 1 else "",
        _whole(plan),
        _assumed(plan, machine),
    ]
    return "\n\n".join(part for part in parts if part)


def _heading(plan: Plan, counts: Counts, clip: Clip, machine: Machine) -> str:
    where = number_of(machine.devices, "device")
    if machine.machines > 1:
        where += f" in {number_of(machine.machines, 'machine')}"
    if not plan.chunk:
        chunk = "not even the smallest chunk fits into memory"
    elif plan.chunk == plan.share:
        chunk = "all at a time"
    else:
        chunk = f"{plan.chunk:,} at a time, and each embedded twice if the loss compares clips"
    lines = [
        f"{where}; {counts.parameters / 1e6:,.2f} million parameters",
        f"a clip: {counts.forward_flop / 1e9:,.3f} GFLOP forward,"
        f" {counts.step_flop / 1e9:,.3f} with backward;"
        f" {counts.kept_bytes / 2**20:,.2f} MiB kept in float32;"
        f" {clip.stored_bytes / KIB:,.0f} KiB read",
        f"a device has {plan.share:,} clips of a batch, {chunk};"
        f" the largest chunk that fits: {plan.largest:,}",
    ]
    if counts.granularity and plan.share % counts.granularity:
        lines.append(
            f"this config does not run so: {plan.share:,} clips are no multiple of"
            f" {counts.granularity:,}, its batchnorm_group; the times are those of one that divides"
        )
    return "\n".join(lines)


def _memory(plan: Plan, machine: Machine) -> list[list[str]]:
    rows = [[name, f"{size / GIB:.2f}"] for name, size in plan.memory.items() if size]
    return [*rows, [f"all, of {machine.memory_gib:g}", f"{sum(plan.memory.values()) / GIB:.2f}"]]


def _times(plan: Plan) -> list[list[str]]:
    order = sorted(plan.seconds, key=lambda name: -plan.seconds[name])
    rows = [
        [name, f"{1e3 * plan.seconds[name]:.2f}", "binds" if name == plan.binds else ""]
        for name in order
    ]
    return [*rows, ["the step", f"{1e3 * plan.step:.2f}", ""]]


def _sent(plan: Plan) -> list[list[str]]:
    return [[name, f"{size / 2**20:.1f}"] for name, size in plan.sent.items() if size]


def _whole(plan: Plan) -> str:
    if plan.steps is None or plan.hours is None or plan.epoch_hours is None:
        return "the number of clips is not known: --clips N gives hours"
    return (
        f"an epoch: {number_of(plan.steps, 'step')}, {span(plan.epoch_hours)}, of which"
        f" {span(plan.evaluation / 3600)} of evaluation; {number_of(plan.epochs, 'epoch')}:"
        f" {span(plan.hours)}"
    )


def _assumed(plan: Plan, machine: Machine) -> str:
    reading = "meanwhile" if plan.meanwhile else "before each step, as trainer.num_workers is 0"
    return (
        f"assumed: a device does {machine.flops / 1e12:.4g} TFLOP/s"
        f" ({100 * machine.utilisation:.0f} % of {machine.tflops:.4g}); clips are as long as they"
        " can be and have every modality; nothing is sent while something is computed; clips are"
        f" read {reading}"
    )


def obstacles(plan: Plan, hours: float) -> str:
    """Say what stands in the way of a training in so many hours, the largest first."""
    if not plan.steps or plan.hours is None:
        return "the number of clips is not known: --clips N"
    left = hours * 3600 / plan.epochs - plan.evaluation
    allowed = left / plan.steps
    if allowed <= 0:
        return f"in {span(hours)}: evaluation alone takes longer"
    lines = [f"in {span(hours)} a step may take {1e3 * allowed:.2f} ms; it takes {_times_of(plan)}"]
    for name in sorted(plan.seconds, key=lambda name: -plan.seconds[name]):
        share = plan.seconds[name] / allowed
        lines.append(f"{name}: {share:.2f} of it{', alone too long' if share > 1 else ''}")
    return "\n".join([*lines, f"all: {plan.step / allowed:.2f} of it"])


def _times_of(plan: Plan) -> str:
    return f"{1e3 * plan.step:.2f} ms"


def span(hours: float) -> str:
    """Write a time in the unit that suits it."""
    if hours >= 48:
        return f"{hours / 24:.1f} days"
    if hours >= 1:
        return f"{hours:.2f} hours"
    return f"{60 * hours:.2f} minutes" if hours >= 1 / 60 else f"{3600 * hours:.2f} seconds"


def _table(title: str, rows: Sequence[Sequence[Any]]) -> str:
    return "\n".join([title, *(f"  {line}".rstrip() for line in align(rows, left=1))])
