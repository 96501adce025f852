"""What a config leaves to the data: widths, lengths, and the size of a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from fusion.builders import left_to_the_data
from fusion.config import ConfigError, merge
from fusion.data.datasets.dataset import ClipSet, Source
from fusion.data.features.problems import warn
from fusion.tasks.task import width_of
from fusion.words import number_of

STEPS = 200  # of a run whose epochs are fitted
EPOCHS = (10, 100)  # the fewest and the most of it
PARTS = (4, 2)  # into how many a batch may be cut whatever the number of processes
FEWEST = 4  # clips in each of them


def fit_config(
    config: Mapping[str, Any], source: Source, read: Callable[[str], ClipSet], processes: int
) -> Mapping[str, Any]:
    """Fill in what a config leaves to the data; a config that leaves nothing is returned as it is.

    ``read`` reads a split of the ``source``, with all modalities of the model.

    * ``data``: the settings of :meth:`.Source.fit`.
    * ``model.modalities.NAME.dim``, null or absent: the width of the data or the encoder.
    * ``model.modalities.NAME.encoder.num_frames``, null: enough for ``data.max_audio_frames``.
    * With ``trainer.fit``: see :func:`fit_trainer`.

    Raises:
        ConfigError: the data lack a modality, or there are too few clips.
    """
    fitted = dict(config)
    if found := source.fit():
        fitted["data"] = {**config["data"], **found}
    missing = left_to_the_data(config["model"])
    if not missing and not config["trainer"].get("fit"):
        return fitted if found else config
    clips = read("train")
    first = clips[0]
    widths: dict[str, Any] = {}
    for name, key in missing:
        width = width_of(first, name)
        if key == "dim":
            widths[name] = {"dim": width}
        else:
            frames = fitted["data"].get("max_audio_frames") or 1
            widths[name] = {"encoder": {"num_frames": 64 * math.ceil(frames / 64)}}
    if widths:
        fitted["model"] = merge(config["model"], {"modalities": widths})
    if config["trainer"].get("fit"):
        fitted = fit_trainer(fitted, len(clips), processes)
    return fitted


def fit_trainer(config: Mapping[str, Any], clips: int, processes: int) -> dict[str, Any]:
    """Fit batch, BatchNorm groups, chunk and epochs to the number of training clips; say so.

    A batch has at most ``trainer.batch_size`` clips, a group at most ``batchnorm_group``. Where
    ``trainer.epochs`` is null, there are as many as 200 steps take, from 10 to 100. From 16 clips
    on these numbers are the same on one, two and four processes, from 8 on one and two: a group
    fits into a quarter of a batch, or a half.

    Raises:
        ConfigError: there are fewer than two clips for each process.
    """
    trainer, model = dict(config["trainer"]), config["model"]
    total = min(trainer["batch_size"], clips)
    shared = (n for n in PARTS if n % processes == 0 and total >= FEWEST * n)
    parts = next(shared, processes)
    most = total // parts
    if most < 2:
        raise ConfigError(
            f"{number_of(clips, 'training clip')} on {number_of(processes, 'device')}, each of"
            " which needs 2; write more captions, or start fewer processes"
        )
    groups = {
        name: spec["encoder"]["batchnorm_group"]
        for name, spec in model.get("modalities", {}).items()
        if spec and (spec.get("encoder") or {}).get("batchnorm_group")
    }
    if own := model.get("batchnorm_group"):  # of a classifier
        groups[""] = own
    group = min([most, *groups.values()])
    group = math.ceil(most / math.ceil(most / group))  # of a batch that is cut into equal parts
    group = group if group * math.ceil(most / group) <= most else most // math.ceil(most / group)
    share = most // group * group if groups else most
    trainer["batch_size"] = share * parts
    if (chunk := trainer.get("chunk_size")) and groups:
        chunk = min(chunk, trainer["batch_size"] // processes)
        trainer["chunk_size"] = max(group, chunk // group * group)
    if trainer["epochs"] is None:
        wanted = math.ceil(STEPS / (clips // trainer["batch_size"]))
        trainer["epochs"] = min(max(wanted, EPOCHS[0]), EPOCHS[1])
    said = [f"batches of {trainer['batch_size']}"]
    said += [f"BatchNorm over {group}"] if groups else []
    warn(
        f"{clips} training clips: {', '.join(said)}, {number_of(trainer['epochs'], 'epoch')};"
        f" trainer.fit=false trainer.epochs={trainer['epochs']} takes the config's numbers"
    )
    spec = {"batchnorm_group": group}
    changes: dict[str, Any] = spec if own else {}
    if sizes := {name: {"encoder": spec} for name in groups if name}:
        changes = {**changes, "modalities": sizes}
    return {**config, "trainer": trainer, "model": merge(model, changes)}
