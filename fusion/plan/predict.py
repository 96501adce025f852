"""Predict memory and time of a training from counts, for a machine.

Shapes: B clips of a batch, b of a rank, N ranks, P parameters, C values of a clip's embeddings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from fusion.config import ConfigError
from fusion.distributed.collectives import BUCKET_BYTES
from fusion.plan.clip import Clip
from fusion.plan.count import Counts
from fusion.plan.machine import Machine
from fusion.training.launch import AUTO
from fusion.training.optim import SGD

HALF = ("fp16", "bf16", AUTO)  # a device to plan for is a GPU, where auto means bf16
KEPT_IN_HALF = 0.55  # of what is kept in float32; norms and softmax stay in float32
FREE = 0.9  # share of the memory that a chunk may fill
WORKSPACE = 2**30  # bytes, of libraries and of the largest temporary tensors
VALUES = {SGD: (2, 5), "adam": (3, 7)}  # of a parameter: kept with its gradient; moved by a step
FEATURES, FILMS = 10_000.0, 20.0  # clips a second that a core reads
IN_LOSS = 15  # messages of EAO's loss: 7 collectives, and 4 all-reduces of two messages each
ALWAYS = 3  # statistics of BatchNorm, and two votes


class Plan(NamedTuple):
    """What a training needs."""

    share: int  # clips of a batch on a rank
    chunk: int  # of them in memory at a time; 0: not even the smallest chunk fits
    largest: int  # chunk that would fit, of a batch that is as large as it needs
    memory: Mapping[str, float]  # bytes on a rank
    sent: Mapping[str, float]  # bytes that a rank sends in a step
    read: float  # bytes that a rank reads in a step
    flop: float  # operations of a rank in a step
    seconds: Mapping[str, float]  # of a step, of each bottleneck
    step: float  # seconds of a step
    meanwhile: bool  # whether clips are read while a step is computed
    steps: int | None  # of an epoch; None: the number of clips is not known
    epochs: int
    evaluation: float  # seconds after an epoch

    @property
    def binds(self) -> str:
        """What takes longest."""
        return max(self.seconds, key=lambda name: self.seconds[name])

    @property
    def epoch_hours(self) -> float | None:
        """Hours of an epoch, with its evaluation."""
        return None if self.steps is None else (self.steps * self.step + self.evaluation) / 3600

    @property
    def hours(self) -> float | None:
        """Hours of all epochs."""
        return None if self.epoch_hours is None else self.epochs * self.epoch_hours


def predict(
    counts: Counts,
    clip: Clip,
    trainer: Mapping[str, Any],
    machine: Machine,
    clips: int | None,
    evaluated: int = 0,
    precision: str | None = None,
) -> Plan:
    """Predict a training.

    Args:
        counts: of the model and the loss.
        clip: that is read.
        trainer: section of the config; of it ``batch_size``, ``chunk_size``, ``epochs``,
            ``num_workers``, ``optimizer`` and ``mixed_precision`` count.
        machine: where it runs.
        clips: of an epoch; None: not known.
        evaluated: clips that are evaluated after each epoch.
        precision: instead of ``trainer.mixed_precision``.

    Raises:
        ConfigError: the batch cannot be divided by the ranks.
    """
    batch = trainer["batch_size"]
    share = _share(batch, machine.devices)
    states, moved = VALUES[SGD if trainer.get("optimizer") == SGD else "adam"]
    halves = (precision or trainer.get("mixed_precision") or "no") in HALF
    memory = _memory(counts, batch, states, halves)
    per_clip = counts.kept_bytes * (KEPT_IN_HALF if halves else 1.0)
    room = FREE * machine.memory_gib * 2**30 - sum(memory.values())
    largest = _cut(room / per_clip, counts.granularity, share)
    chunk = min(largest, trainer.get("chunk_size") or share, share)
    memory["a chunk"] = per_clip * chunk
    again = counts.forward_flop if chunk < share and counts.output_values else 0.0
    flop = share * (counts.step_flop + again + counts.loss_flop * batch)
    meanwhile = trainer.get("num_workers", 0) > 0
    seconds = {
        "arithmetic": flop / machine.flops,
        "update of the weights": 4.0 * moved * counts.trained / (machine.memory_tbps * 1e12),
        "reading": _reading(clip, share, machine, machine.cores if meanwhile else 1),
        "communication": _communication(counts, batch, machine),
    }
    computing = sum(value for name, value in seconds.items() if name != "reading")
    steps = None if clips is None else clips // batch
    evaluation = _evaluation(counts, evaluated, machine)
    if steps:
        seconds["evaluation"] = evaluation / steps
    epochs = trainer.get("epochs") or 1
    step = (max if meanwhile else sum)((computing, seconds["reading"]))
    return Plan(
        share=share,
        chunk=chunk,
        largest=largest,
        memory=memory,
        sent=_sent(counts, batch, machine.devices),
        read=share * clip.stored_bytes,
        flop=flop,
        seconds=seconds,
        step=step,
        meanwhile=meanwhile,
        steps=steps,
        epochs=epochs,
        evaluation=evaluation,
    )


def _cut(clips: float, granularity: int | None, share: int) -> int:
    """Return the largest chunk of so many clips, which may be more than a share; 0: none fits."""
    if granularity is None:
        return share if clips >= share else 0
    return max(0, math.floor(clips / granularity) * granularity)


def _share(batch: int, devices: int) -> int:
    """Return the clips of a rank; ConfigError: the batch cannot be divided."""
    if batch % devices:
        near = max(devices, batch // devices * devices)
        raise ConfigError(
            f"trainer.batch_size={batch} cannot be divided by {devices} devices; the nearest"
            f" batches are {near} and {near + devices}"
        )
    return batch // devices


def _memory(counts: Counts, batch: int, states: int, halves: bool) -> dict[str, float]:
    """Return the bytes on a rank, but those of a chunk."""
    return {
        "weights": 4.0 * counts.parameters,
        "gradients and optimizer": 4.0 * states * counts.trained,
        "weights in half precision": 2.0 * counts.parameters if halves else 0.0,
        "embeddings of the batch": 4.0 * 2 * batch * counts.output_values,
        "libraries": float(WORKSPACE),
    }


def _sent(counts: Counts, batch: int, devices: int) -> dict[str, float]:
    """Return the bytes that a rank sends in a step."""
    embeddings = _ring(4.0 * batch * counts.output_values, devices)
    gradients = _ring(2 * 4.0 * counts.trained, devices)
    return {"gradients": gradients, "embeddings": embeddings, "their gradients": embeddings}


def _reading(clip: Clip, share: int, machine: Machine, cores: int) -> float:
    """Return the seconds of reading a share, by so many cores."""
    disk = machine.in_a_machine * share * clip.stored_bytes / (machine.read_gbps * 1e9 / 8)
    rate = machine.clips_per_core or (FILMS if clip.decodes else FEATURES)
    return max(disk, share / (cores * rate))


def _ring(total: float, devices: int) -> float:
    """Return the bytes that a rank sends of so many in all."""
    return total * (devices - 1) / devices


def _communication(counts: Counts, batch: int, machine: Machine) -> float:
    """Return the seconds of all collectives of a step, none of which is hidden by arithmetic."""
    gradients = 4.0 * counts.trained
    buckets = math.ceil(gradients / BUCKET_BYTES)
    embeddings = 4.0 * batch * counts.output_values
    found = machine.exchange(2 * gradients, 2 * (buckets + ALWAYS))
    return found + (machine.exchange(2 * embeddings, IN_LOSS) if embeddings else 0.0)


def _evaluation(counts: Counts, clips: int, machine: Machine) -> float:
    """Return the seconds of embedding so many clips, and of comparing them in pairs."""
    compared = counts.loss_flop / 4 * clips  # one pass of each term
    flop = clips * (counts.forward_flop + compared)
    return flop / (machine.flops * machine.devices)
