"""A trial of a recipe (``--smoke``): its model and data made small, to run in a minute."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fusion.commands.initial import read_training_config
from fusion.config import change_config, flatten
from fusion.data.datasets import DATASETS
from fusion.data.features.problems import warn
from fusion.data.labelled import LABELLED_SETS
from fusion.data.questions import QUESTION_SETS
from fusion.losses import LOSSES
from fusion.models import MODELS, TEXT_ENCODERS
from fusion.models.davenet import WIDTHS

CLIPS, BATCH, GROUP, WIDTH = 48, 16, 4, 32  # clips of a split, a step, a BatchNorm; model width
SMALL_IMAGE = "test_resnet"  # of timm
SMALL_FRAMES = {"block": "basic", "layers": [1, 1, 1, 1], "widths": [8, 8, 8, WIDTH]}
MOST = {  # values of a section that are lowered to these
    "model": {
        **dict.fromkeys(("token_dim", "embedding_dim", "reconstruction_dim"), WIDTH),
        **{"num_heads": 2, "num_blocks": 1},
    },
    "loss": {"clusters": 4, "queue_batches": 2, "every": 2},
    "data": {"films": 6, "pictures": 24, "training_films": 16},
    "text_encoder": {"limit": 20_000},
}
TRAINER = {"epochs": 1, "batch_size": BATCH, "log_every": 1, "num_workers": 0, "warmup_steps": 2}
TRAINER |= {"chunk_size": None, "save_every": None, "compile": False}  # type: ignore[dict-item]
TRAINER |= {"warmup_epochs": None}  # type: ignore[dict-item]  # warmup_steps are instead of them
TABLES: dict[str, Mapping[str, Any]] = {
    "model": MODELS,
    "loss": LOSSES,
    "data": DATASETS | QUESTION_SETS | LABELLED_SETS,
    "text_encoder": TEXT_ENCODERS,
}


def read_smoke_config(path: str | Path, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """Read a config for a trial: few clips, small widths, one epoch; one line says what changed.

    Overrides are kept as they are. ``init`` is left out unless it is one of them, because the
    published weights do not fit a small model. The output is that of the config with ``-smoke``
    at its end, and is overwritten.
    """
    overrides = list(overrides)
    typed = {word.partition("=")[0] for word in overrides}
    begins = "init" in typed
    config = read_training_config(path, overrides if begins else [*overrides, "init=null"])
    small = config | {"max_clips": CLIPS, "trainer": config["trainer"] | TRAINER}
    if "trainer.warmup_epochs" in typed:
        small["trainer"]["warmup_steps"] = 0
    for section, most in MOST.items():
        if config[section] is not None and not (section == "model" and begins):
            small[section] = _lower(config[section], TABLES[section], most)
    small["model"] = _fit_encoders(small["model"], narrow=not begins)
    if "protocol" in _parameters(config["data"], DATASETS):
        small["data"] = small["data"] | {"protocol": "all"}
    if "output" not in typed:
        small["output"] += "-smoke"
        small["overwrite"] = not config["resume"]
    small = change_config(small, [word for word in overrides if not word.startswith("init=")])
    before, after = flatten(config), flatten(small)
    del after["overwrite"]
    changed = [f"{k}={v}" for k, v in after.items() if before.get(k) != v and (v or k in before)]
    warn(f"smoke     a trial, no result to report: {', '.join(changed)}")
    return small


def _lower(
    section: Mapping[str, Any], table: Mapping[str, Any], most: Mapping[str, int]
) -> dict[str, Any]:
    """Lower numbers that are higher, given or by default; None means no limit."""
    lowered = dict(section)
    for key, parameter in _parameters(section, table).items():
        if key in most:
            value = section.get(key, parameter.default)
            lowered[key] = min(value, most[key]) if isinstance(value, int) else most[key]
    return lowered


def _parameters(
    section: Mapping[str, Any], table: Mapping[str, Any]
) -> Mapping[str, inspect.Parameter]:
    made = table.get(section.get("name", ""))
    made = made.train if made and table is TEXT_ENCODERS and made.learns else made
    return inspect.signature(made).parameters if made else {}


def _fit_encoders(model: Mapping[str, Any], narrow: bool) -> dict[str, Any]:
    """Let every BatchNorm see groups of a few clips, and perhaps take small networks."""
    if model.get("name") == "classifier":
        return {**model, **_small_frames(model, "pretrained", False, narrow)}
    modalities = dict(model.get("modalities", {}))
    for name, spec in modalities.items():
        encoder = (spec or {}).get("encoder") or {}
        changes: dict[str, Any] = {}
        if encoder.get("name") == "davenet":
            changes["batchnorm_group"] = GROUP if encoder.get("batchnorm_group") else None
            if narrow:
                stages = len(WIDTHS[encoder.get("version", 2)])
                changes["widths"] = [4] * (stages - 1) + [WIDTH]
        elif encoder.get("name") == "tsm":
            changes = _small_frames(encoder, "weights", None, narrow)
        elif encoder.get("name") == "timm" and narrow:
            changes = {"model": SMALL_IMAGE, "weights": None}
        if changes:
            modalities[name] = {**spec, "encoder": {**encoder, **changes}}
    return {**model, "modalities": modalities} if modalities else dict(model)


def _small_frames(
    tsm: Mapping[str, Any], weights: str, random: bool | None, narrow: bool
) -> dict[str, Any]:
    """Change the settings of a TSM; ``random`` is the value of ``weights`` for random ones."""
    changes: dict[str, Any] = {"batchnorm_group": GROUP} if tsm.get("batchnorm_group") else {}
    if narrow:
        changes["network"] = dict(SMALL_FRAMES)
        if tsm.get(weights):
            changes[weights] = random
    return changes
