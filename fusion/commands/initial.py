"""The config of a run that begins with the weights of another (``init=CHECKPOINT``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fusion.builders import learns
from fusion.checkpoint import (
    CONFIG,
    WEIGHTS,
    CheckpointError,
    find_checkpoint,
    find_difference,
    load_weights,
    read_config,
    read_tensors,
    trust_of,
)
from fusion.config import ConfigError, changed_keys, choose, flatten, load_config, merge
from fusion.data.features.problems import warn
from fusion.models import MODELS


def read_training_config(path: str | Path, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """Read a config for training; with ``init`` its model is that of the checkpoint.

    The section ``model`` comes from the checkpoint. What the config changes is kept: the keys of
    files that change the section of their base, and those of the overrides, see
    :func:`fusion.config.changed_keys`. The text encoder is that of the checkpoint unless the config
    names a file of vectors of the same kind. One line says what was taken.

    Raises:
        ConfigError: as :func:`fusion.config.load_config`; or there is no such checkpoint, or it has
            another kind of model.
    """
    overrides = list(overrides)
    config = load_config(path, overrides)
    if config["init"] is None:
        return config
    if config["data_root"] is None and config["init"].startswith("None/"):
        raise ConfigError(
            f"{path} begins with weights below data_root; add data_root=FOLDER, or init=CHECKPOINT"
        )
    begun = Path(config["output"]) / CONFIG
    resumes = config["resume"] and begun.exists()  # the checkpoint may be gone by now
    source = begun if resumes else find_initial(config["init"])
    known = load_config(begun, own=False) if resumes else read_config(source, trust_of(config))
    own, theirs = config["model"], known["model"]
    name, other = own.get("name"), theirs.get("name")
    if name != other:
        raise ConfigError(
            f"{path} trains the model {name}, but init={config['init']} is of {other}; train a"
            f" recipe of {other}, or take a checkpoint of {name}"
        )
    flat = flatten(own)
    kept = [key for key in changed_keys("model", path, overrides) if key in flat]
    config["model"] = merge(theirs, _nest({key: flat[key] for key in kept}))
    _take_text_encoder(config, known, overrides)
    if not resumes:
        _say(config, own, theirs, source)
    return config


def find_initial(init: str) -> Path:
    """Find the checkpoint that ``init`` names; a ConfigError says how to make one."""
    try:
        return find_checkpoint(init)
    except CheckpointError as error:
        if Path(init).exists():
            raise ConfigError(f"init: {error}") from None
        raise ConfigError(
            f"init: {error}; published weights are converted by fusion convert"
            f" FILE.pth --out {init}"
        ) from None


def load_initial(model: nn.Module, checkpoint: Path, config: Mapping[str, Any]) -> None:
    """Load the weights of a checkpoint; a ConfigError names the keys of ``model`` that differ."""
    try:
        load_weights(model, checkpoint)
    except CheckpointError as error:
        own, theirs = config["model"], read_config(checkpoint, trust_of(config))["model"]
        here, there = flatten(own), flatten(theirs)
        weights = read_tensors(checkpoint / WEIGHTS)
        wrong = [
            f"model.{key}={here.get(key)} ({there.get(key)} there)"
            for key in _differing(here, there)
            if not _fits(merge(theirs, _nest({key: here.get(key)})), weights)
        ]
        if not wrong:
            raise
        what = str(error).partition("; ")[0]
        raise ConfigError(
            f"init: {what}; make these as in the checkpoint: {', '.join(wrong)}"
        ) from None


def _fits(spec: Mapping[str, Any], weights: Mapping[str, Tensor]) -> bool:
    try:
        with torch.device("meta"):
            return not find_difference(choose("model", spec, MODELS)().state_dict(), weights)
    except ValueError:  # this change alone makes no model
        return False


def _take_text_encoder(
    config: dict[str, Any], known: Mapping[str, Any], overrides: list[str]
) -> None:
    """Take the text encoder of the checkpoint: a model only understands its own vectors."""
    own, theirs = config["text_encoder"], known["text_encoder"]
    if own is None or theirs is None:
        return
    other = own.get("name") != theirs["name"]
    if other and any(word.startswith("text_encoder.name=") for word in overrides):
        raise ConfigError(
            f"text_encoder.name={own.get('name')}, but the model of init={config['init']} was"
            f" trained with {theirs['name']}; leave text_encoder.name out"
        )
    if other or learns(theirs):
        config["text_encoder"] = theirs


def _say(
    config: Mapping[str, Any], own: Mapping[str, Any], theirs: Mapping[str, Any], source: Path
) -> None:
    now, there, here = flatten(config["model"]), flatten(theirs), flatten(own)
    kept = [f"{k}={now.get(k)} ({there.get(k)} there)" for k in _differing(now, there)]
    given_up = [f"{k}={here.get(k)}" for k in _differing(here, now)]
    text = f"init      the model is that of {source}"
    text += f"; changed: {', '.join(kept)}" if kept else ""
    warn(text + (f"; not taken from the config: {', '.join(given_up)}" if given_up else ""))


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return [key for key in {**one, **other} if one.get(key) != other.get(key)]


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *path, last = key.split(".")
        place = nested
        for name in path:
            place = place.setdefault(name, {})
        place[last] = value
    return nested
