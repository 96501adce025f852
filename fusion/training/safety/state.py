"""The state of a training beside its weights: what is saved, and what is checked before it is used.

A state from disk is compared with that of the run that is to go on with it. Fused optimizers trust
the shapes of their state: one of another shape would crash the interpreter.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fusion.checkpoint import CheckpointError, check_checkpoint, load_weights, read_state
from fusion.config import ConfigError
from fusion.manifest import digest_of, read_manifest
from fusion.training.launch import warn
from fusion.training.safety.checkpoints import BEST, SEALED, STATE, check_finite, find_best_problem

if TYPE_CHECKING:
    from fusion.training.run_folder import RunFolder
    from fusion.training.trainer import Trainer

NEEDED = {"optimizer", "scaler", "loss", "position", "best", "chunks", "chunk_size"}
# "schedule" is of older versions: the learning rate follows from the position.
KNOWN = NEEDED | {"schedule", "waited", SEALED}


def new_run_id() -> str:
    """Name a run, so that its checkpoints are not taken for those of another one."""
    return secrets.token_hex(8)


def facts_of(trainer: Trainer, config: Mapping[str, Any]) -> dict[str, Any]:
    """Say for a manifest which run a checkpoint is of, and where in it."""
    return {
        "run": trainer.run_id,
        "step": trainer.steps_done,
        "epoch": trainer.epoch,
        "steps_per_epoch": len(trainer.batches),
        "seed": trainer.seed,
        "config": digest_of(config),
        "mixed_precision": trainer.accelerator.mixed_precision,
        "processes": trainer.accelerator.num_processes,
    }


def pack_state(trainer: Trainer) -> dict[str, Any]:
    """Return what a run needs to go on, beside its weights.

    Raises:
        FloatingPointError: the weights or the optimizer's state are not finite.
    """
    scaler, optimizer = trainer.accelerator.scaler, trainer.optimizer.state_dict()
    check_finite({"optimizer": optimizer["state"]}, trainer.steps_done)
    return {
        SEALED: True,
        "optimizer": optimizer,
        "scaler": scaler.state_dict() if scaler is not None else None,
        "loss": trainer.loss.state_dict(),
        "position": {"epoch": trainer.epoch, "batch": trainer.batch},
        "best": trainer.best.score,
        "waited": trainer.best.waited,
        "chunks": trainer.chunks,
        "chunk_size": trainer.settings.chunk_size,
    }


def restore_state(trainer: Trainer, folder: Path) -> None:
    """Set a trainer to where a checkpoint was written.

    Raises:
        ConfigError: the checkpoint is of another run, or of other data.
        CheckpointError: something in it is not what a training saves; the message is one line.
    """
    if (manifest := check_checkpoint(folder)) is not None:
        _compare_run(trainer, manifest, folder)
    load_weights(trainer.unwrapped, folder)
    path = folder / STATE
    state = read_state(path)
    try:
        check_finite(trainer.unwrapped.state_dict(), 0)
        _check(trainer, state, manifest)
        _apply(trainer, state)
    except FloatingPointError as error:
        raise CheckpointError(f"{folder}: {str(error).partition(' at step')[0]}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, IndexError) as error:
        # The last ones are of a loss or a scaler that gets the state of another one.
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{path} is no state of this run ({why}); take another checkpoint of it, or begin"
            " another run by output=DIR"
        ) from None
    trainer.run_id = (manifest or _manifest_of_best(folder)).get("run") or new_run_id()


def check_best(trainer: Trainer, folder: RunFolder) -> None:
    """Give up a best checkpoint that is damaged or of another run, so that another one is written.

    CheckpointError: the run is at its end, and there will be no other one.
    """
    problem = find_best_problem(folder.path, trainer.run_id) if trainer.epoch else None
    if problem is None:
        return
    if trainer.epoch == trainer.settings.epochs or trainer.best.is_over:
        raise CheckpointError(
            f"{problem}, and the training is over: fusion evaluate {folder.last} is what is left,"
            f" or copy {folder.best} from a backup"
        )
    warn(f"{problem}: the next epoch takes its place, whatever its score")
    trainer.best.score, trainer.best.waited = -math.inf, 0


def _manifest_of_best(last: Path) -> dict[str, Any]:
    """Read it for the name of the run, where the last checkpoint is older than manifests."""
    try:
        return read_manifest(last.with_name(BEST)) or {}
    except ValueError:  # said later
        return {}


def _compare_run(trainer: Trainer, manifest: Mapping[str, Any], folder: Path) -> None:
    """Raise ConfigError if a checkpoint is of another seed, precision or amount of data."""
    ours = facts_of(trainer, {})
    ways = {
        "seed": "it is of another run: set the seed back",
        "steps_per_epoch": "give the data and trainer.batch_size that it was begun with",
        "mixed_precision": f"set trainer.mixed_precision={manifest.get('mixed_precision')}",
    }
    for key, way in ways.items():
        if manifest.get(key) != ours[key]:
            raise ConfigError(
                f"{folder} was written with {key}={manifest.get(key)} and cannot go on with"
                f" {ours[key]}; {way}, or begin another run by output=DIR"
            )


def _check(trainer: Trainer, state: Any, manifest: Mapping[str, Any] | None) -> None:
    """Raise ValueError if a state is not one that :func:`pack_state` returns for this trainer."""
    if not isinstance(state, Mapping):
        raise ValueError(f"it holds a {type(state).__name__}")
    # The first versions had only losses without a state, and did not write it.
    needed = NEEDED if SEALED in state or trainer.loss.state_dict() else NEEDED - {"loss"}
    if missing := sorted(needed - state.keys()):
        raise ValueError(f"it lacks {', '.join(missing)}")
    if unknown := sorted(map(str, state.keys() - KNOWN)):
        raise ValueError(f"it has {', '.join(unknown)}, which is unknown")
    position = state["position"]
    limits = {"epoch": trainer.settings.epochs, "batch": len(trainer.batches)}
    if not isinstance(position, Mapping) or position.keys() != limits.keys():
        raise ValueError(f"its position is {position!r}")
    for key, most in limits.items():
        if not _is_count(position[key], most):
            named = "trainer.epochs=" if key == "epoch" else ""
            raise ValueError(f"its {key} is {position[key]!r}, not from 0 to {named}{most}")
    step = position["epoch"] * len(trainer.batches) + position["batch"]
    if manifest is not None and manifest.get("step") != step:
        raise ValueError(f"it is of step {step}, and the manifest of {manifest.get('step')}")
    if not isinstance(state["best"], int | float) or math.isnan(state["best"]):
        raise ValueError(f"its best is {state['best']!r}")
    if not _is_count(state.get("waited", 0), 2**31):
        raise ValueError(f"its waited is {state['waited']!r}")
    chunks = state["chunks"]
    if not isinstance(chunks, list) or not chunks or not all(_is_count(n, 2**31) for n in chunks):
        raise ValueError(f"its chunks are {chunks!r}")
    _check_optimizer(state["optimizer"], trainer.optimizer.state_dict())


def _check_optimizer(given: Any, own: Mapping[str, Any]) -> None:
    if not isinstance(given, Mapping) or not {"state", "param_groups"} <= given.keys():
        raise ValueError("its optimizer has no state and param_groups")
    groups = [_parameters(group) for group in _as_list(given["param_groups"])]
    if groups != [group["params"] for group in own["param_groups"]]:
        raise ValueError("its optimizer is of other parameters")
    if (problem := _difference(given["state"], own["state"], "optimizer")) is not None:
        raise ValueError(problem)
    check_finite({"optimizer": given["state"]}, 0)


def _difference(given: Any, own: Any, name: str) -> str | None:
    """Say how a nested value differs in its keys, kinds and shapes from the run's own."""
    if isinstance(own, Tensor):
        if not isinstance(given, Tensor):
            return f"{name} is a {type(given).__name__}, not a tensor"
        ours, theirs = (f"{[*t.shape]} of {t.dtype}" for t in (own, given))
        return None if ours == theirs else f"{name} is {theirs}, not {ours}"
    if not isinstance(own, Mapping):
        same = type(given) is type(own)
        return None if same else f"{name} is a {type(given).__name__}, not a {type(own).__name__}"
    if not isinstance(given, Mapping):
        return f"{name} is a {type(given).__name__}"
    if given.keys() != own.keys():
        wrong = sorted(map(str, given.keys() ^ own.keys()))
        return f"{name} lacks or adds {', '.join(wrong[:3])}"
    found = (_difference(given[key], value, f"{name}.{key}") for key, value in own.items())
    return next((problem for problem in found if problem), None)


def _apply(trainer: Trainer, state: Mapping[str, Any]) -> None:
    own = trainer.optimizer.state_dict()["param_groups"]  # what the config says, not the file
    trainer.optimizer.load_state_dict({"state": state["optimizer"]["state"], "param_groups": own})
    if (scaler := trainer.accelerator.scaler) is not None and state["scaler"] is not None:
        scaler.load_state_dict(state["scaler"])
    trainer.loss.load_state_dict(state.get("loss") or {})
    trainer.epoch, trainer.batch = state["position"]["epoch"], state["position"]["batch"]
    go_to(trainer.schedule, trainer.steps_done)
    trainer.best.score, trainer.best.waited = float(state["best"]), state.get("waited", 0)
    if state["chunk_size"] == trainer.settings.chunk_size:  # else the user has changed it
        trainer.chunk.limit(min(state["chunks"]))
        trainer.chunks = [trainer.chunk.size] * trainer.accelerator.num_processes
        trainer.found_chunk = True


def go_to(schedule: torch.optim.lr_scheduler.LambdaLR, step: int) -> None:
    """Set the learning rates to those after so many steps: a function of the step alone."""
    pairs = zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
    rates = [float(highest) * factor(step) for highest, factor in pairs]
    for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    position = {"last_epoch": step, "_step_count": step + 1, "_last_lr": rates}
    schedule.load_state_dict(schedule.state_dict() | position)


def _is_count(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _parameters(group: Any) -> Any:
    return group.get("params") if isinstance(group, Mapping) else None
