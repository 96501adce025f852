"""The newest checkpoints of a run on disk: ``last``, and ``last.1`` and so on, which are older.

A damaged one is passed over for the one before, with a warning, and never deleted: it becomes
``last.damaged``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from fusion.checkpoint import WEIGHTS, CheckpointError, read_state, seal_checkpoint
from fusion.files import remove_folder, replace_folder
from fusion.manifest import MANIFEST, DamagedError, check_files, read_manifest
from fusion.training.launch import warn

LAST, BEST, DAMAGED = "last", "best", "last.damaged"
STATE = "trainer.pt"
SEALED = "sealed"  # key of a state that is saved with a manifest


def write_checkpoint(
    path: Path,
    write: Callable[[Path], None],
    model: nn.Module,
    facts: Mapping[str, Any],
    keep: int = 1,
) -> None:
    """Write a checkpoint with its manifest, atomically, and keep so many of them.

    Raises:
        OSError: it cannot be written; those before are as they were.
    """
    try:
        # A checkpoint of the same step takes the place of the last one.
        again = keep > 1 and _step_of(path) == facts["step"]
        with replace_folder(path, 1 if again else keep) as folder:
            write(folder)
            seal_checkpoint(folder, model, facts)
    except (SafetensorError, RuntimeError, OSError) as error:  # all mean a full disk
        raise OSError(
            f"{path} cannot be written ({error}); make room there and go on with resume=true"
        ) from error
    for number, folder in _numbered(path):
        if number >= keep and path.name == LAST:
            gone = folder.rename(path.with_name(f"{path.name}.new-{number}"))  # not half of it
            remove_folder(gone)


def recover_last(run: Path) -> None:
    """Undo an exchange of checkpoints that was stopped between its renames.

    No other process may be writing there.
    """
    leftovers = [*run.glob(f"{LAST}.new-*")]
    if (run / LAST).exists():  # of what it replaced a part may be deleted
        leftovers += [folder for folder in copies(run) if folder.suffix == ".old"]
    for leftover in leftovers:
        remove_folder(leftover)
    _close_ranks(run)


def find_damage(folder: Path) -> str | None:
    """Say what is wrong with a checkpoint that a run could continue from; None: nothing is."""
    try:
        if not (folder / WEIGHTS).exists():
            return f"{folder / WEIGHTS} is missing"
        if check_files(folder) is not None:
            return None
        state = read_state(folder / STATE)
    except (DamagedError, CheckpointError) as error:
        return str(error).partition("; ")[0]
    if isinstance(state, Mapping) and SEALED in state:
        return f"{folder / MANIFEST} is missing"
    return None


def pass_over_damaged(run: Path) -> None:
    """Make ``last`` the newest checkpoint that is whole; a warning names the files that are not.

    Raises:
        CheckpointError: there are checkpoints, but all are damaged; nothing is changed.
    """
    folders = copies(run)
    damaged: list[tuple[Path, str]] = []
    for folder in folders:
        if (problem := find_damage(folder)) is None:
            break
        damaged.append((folder, problem))
    else:
        if folders:
            best = run / BEST
            way = f"init={best}" if (best / WEIGHTS).exists() else "another seed or config"
            raise CheckpointError(
                f"no checkpoint of {run} can be continued ({'; '.join(p for _, p in damaged)});"
                f" copy one from a backup, begin another run by output=DIR {way}, or delete this"
                " one by overwrite=true"
            )
    for path, problem in damaged:
        remove_folder(run / DAMAGED)
        path.rename(run / DAMAGED)
        warn(f"{problem}: going on from the checkpoint before; the damaged one is {run / DAMAGED}")
    _close_ranks(run)


def find_best_problem(run: Path, run_id: str) -> str | None:
    """Say why the best checkpoint of a run that goes on cannot be used; None: it can."""
    folder = run / BEST
    if not (folder / WEIGHTS).exists():
        return f"{folder / WEIGHTS} is missing"
    try:
        manifest = check_files(folder)
    except DamagedError as error:
        return str(error)
    if manifest and manifest.get("run") != run_id:
        return f"{folder} is of another run"
    return None


def copies(run: Path) -> list[Path]:
    """List the checkpoints that a run could continue from, the newest first."""
    path = run / LAST
    olds = [run / f"{LAST}.old", *(old for _, old in _numbered(path, ".old"))]
    places = [path, *(folder for _, folder in _numbered(path)), *olds]
    return [place for place in places if place.is_dir()]


def delete_copies(run: Path) -> None:
    """Delete all of them, also a damaged one."""
    for folder in [*copies(run), run / DAMAGED]:
        remove_folder(folder)


def check_finite(named: Mapping[str, Any], step: int) -> None:
    """Raise FloatingPointError if a tensor of what is to be saved is not finite."""
    tensors = {n: t for n, t in _tensors(named, "") if t.is_floating_point() and t.numel()}
    if not tensors:
        return
    highest = torch.nn.utils.get_total_norm([*tensors.values()], float("inf"))
    if not torch.isfinite(highest):
        name = next(n for n, t in tensors.items() if not torch.isfinite(t).all())
        raise FloatingPointError(
            f"{name} is not finite at step {step}, and is not saved: the checkpoints are as they"
            " were; lower trainer.learning_rate and begin another run by output=DIR"
        )


def _tensors(value: Any, name: str) -> list[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        return [(name, value)]
    if not isinstance(value, Mapping):
        return []
    inner = ((f"{name}.{key}".lstrip("."), part) for key, part in value.items())
    return [pair for key, part in inner for pair in _tensors(part, key)]


def _numbered(path: Path, ending: str = "") -> list[tuple[int, Path]]:
    name = re.compile(rf"{re.escape(path.name)}\.([1-9][0-9]{{0,8}}){re.escape(ending)}")
    found = [(name.fullmatch(file.name), file) for file in path.parent.glob("*")]
    return sorted((int(match[1]), file) for match, file in found if match)


def _close_ranks(run: Path) -> None:
    """Rename the checkpoints that are left to ``last``, ``last.1`` and so on."""
    for number, folder in enumerate(copies(run)):
        place = run / (f"{LAST}.{number}" if number else LAST)
        if folder != place:
            folder.rename(place)


def _step_of(folder: Path) -> int | None:
    try:
        manifest = read_manifest(folder)
    except ValueError:
        return None
    return manifest.get("step") if manifest else None
