"""A model on disk with all that is needed to use it: a folder, written atomically.

config.yaml                   what the model is and how it was trained
model.safetensors             its weights
recipe.json                   how the features of its clips were made, if that is known
manifest.json                 size and SHA-256 of each file, see :mod:`fusion.manifest`
word_vectors.safetensors, vocabulary.txt    (or what else the text encoder saves)
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from fusion.config import choose, load_config, merge, to_yaml
from fusion.data.features.problems import warn
from fusion.data.untrusted.reading import read_json
from fusion.data.untrusted.weight_files import find_difference, reason_of, shapes_of
from fusion.manifest import MANIFEST, DamagedError, NewerError, check_files, write_manifest
from fusion.models import MODELS, TEXT_ENCODERS
from fusion.parts import find_part, own_parts

WEIGHTS = "model.safetensors"
SMALL = 10**7  # weights that are made without asking whether there are so many
CONFIG = "config.yaml"
RECIPE = "recipe.json"
Trust = bool | Collection[str]  # of import paths in a checkpoint: all or none, or these

_without_manifest: set[Path] = set()  # of these it was said


def trust_of(config: Mapping[str, Any]) -> Trust:
    """Return which parts a config of the user allows a checkpoint to import."""
    return True if config["trust"] else {part for _, part in own_parts(config)}


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message is one line."""


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    config: Mapping[str, Any],
    text_encoder: Any,
    recipe: Mapping[str, Any] | None = None,
) -> None:
    """Write a model into an empty folder, see :func:`fusion.files.replace_folder`."""
    save_weights(folder, model)
    (folder / CONFIG).write_text(to_yaml(config), encoding="utf-8")
    if recipe is not None:
        (folder / RECIPE).write_text(json.dumps(recipe, indent=1), encoding="utf-8")
    save_text_encoder(folder, text_encoder)


def seal_checkpoint(folder: Path, model: nn.Module, facts: Mapping[str, Any] | None = None) -> None:
    """Write the manifest of a checkpoint, once all its other files are there."""
    shapes = {n: "x".join(map(str, t.shape)) or "scalar" for n, t in model.state_dict().items()}
    write_manifest(folder, {**(facts or {}), "shapes": shapes})


def check_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Compare the files of a checkpoint with its manifest, and return that.

    None: it has none, which a warning says. A CheckpointError names a file that is damaged.
    """
    try:
        manifest = check_files(folder)
    except DamagedError as error:
        others = (folder.with_name(name) for name in ("best", "last", "last.1"))
        other = next((str(o) for o in others if o != folder and (o / WEIGHTS).exists()), "a backup")
        raise CheckpointError(
            f"{error}; take {other}, or if you changed it yourself, delete {folder / MANIFEST}"
        ) from None
    except NewerError as error:
        raise CheckpointError(str(error)) from None
    if manifest is None and (path := folder.absolute()) not in _without_manifest:
        _without_manifest.add(path)
        warn(
            f"{folder} has no {MANIFEST}, as checkpoints of older versions: it is read, but damage"
            " to its files would not be noticed"
        )
    return manifest


def save_text_encoder(folder: Path, text_encoder: Any) -> None:
    """Write a text encoder, if it has something that its config does not say."""
    if hasattr(text_encoder, "save"):
        text_encoder.save(folder)


def save_weights(folder: Path, model: nn.Module) -> None:
    """Write the weights of a model into a folder; those that are tied are written once for each."""
    weights, seen = {}, set()
    for name, tensor in model.state_dict().items():
        place = tensor.untyped_storage().data_ptr()
        weights[name] = (tensor.clone() if place in seen else tensor).contiguous()
        seen.add(place)
    safetensors.torch.save_file(weights, folder / WEIGHTS)


def load_checkpoint(
    path: str | Path, trust: Trust = False, moved: str | Path | None = None
) -> tuple[nn.Module, Any, dict[str, Any]]:
    """Read a model.

    Args:
        path: a checkpoint's folder, or the folder of a run, of which the best checkpoint is taken.
        trust: whether to import what its config names by import path, which runs that code.
        moved: see :func:`load_text_encoder`.

    Returns:
        The model in evaluation mode, its text encoder and the config it was trained with.

    Raises:
        CheckpointError: nothing usable is there; the message says what is wrong.
    """
    model = load_model(path, trust=trust)
    return model, load_text_encoder(path, trust, moved), read_config(path, trust)


def read_config(path: str | Path, trust: Trust = False) -> dict[str, Any]:
    """Read what a model was trained with, see :func:`load_checkpoint`.

    ``trust`` may also be the import paths that the user has named.
    """
    config = load_config(find_checkpoint(path) / CONFIG, own=False)
    known = () if isinstance(trust, bool) else trust
    unknown = [part for part in own_parts(config) if trust is not True and part[1] not in known]
    if unknown:
        named = ", ".join(f"{key} {part}" for key, part in unknown)
        modules = ", ".join(dict.fromkeys(part.partition(":")[0] for _, part in unknown))
        raise CheckpointError(
            f"{path} names parts that are not of fusion ({named}), and loading it would import and"
            f" run {modules}; if you trust this code, say so: fusion.load(..., trust=True), --trust"
            " of a command, trust=true in training"
        )
    return config | {"trust": False}


def read_recipe(path: str | Path) -> dict[str, Any] | None:
    """Read how the features of a model's clips were made; None if its checkpoint does not say."""
    file = find_checkpoint(path) / RECIPE
    try:
        recipe: dict[str, Any] = read_json(file)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} is damaged ({error}); copy it from a backup") from None
    return recipe


_READER = {"decoding"}  # the version of the film reader: it makes a difference for few films


def check_recipe(
    trained: Mapping[str, Any] | None,
    given: Mapping[str, Any] | None,
    path: str | Path,
    here: str = "the data here",
    way_out: str = "extract the features as then",
) -> None:
    """Raise a CheckpointError if features are made in another way than in training.

    Where one of the recipes is not known, nothing is checked.

    Args:
        trained: recipe of a checkpoint, see :meth:`.Source.recipe`.
        given: recipe to compare.
        path: of the checkpoint, for the message, as are:
        here: what ``given`` is of.
        way_out: what the user can do.
    """
    if trained is None or given is None:
        return
    theirs, ours = trained["features"], given["features"]
    for key in {**theirs, **ours}:
        if key not in _READER and theirs.get(key) != ours.get(key):
            raise CheckpointError(
                f"{path} was trained with features of {key}: {theirs.get(key)} ({here}:"
                f" {ours.get(key)}); {way_out}"
            )


def load_model(
    path: str | Path, changes: Mapping[str, Any] | None = None, trust: Trust = False
) -> nn.Module:
    """Read a model alone, in evaluation mode; see :func:`load_checkpoint`.

    ``changes`` to the ``model`` section of its config must not change its weights, such as the
    number of spectrogram frames.
    """
    make = choose("model", merge(read_config(path, trust)["model"], changes or {}), MODELS)
    _check_size(make, find_checkpoint(path))
    model = make()
    load_weights(model, find_checkpoint(path))
    return model.eval()


def load_text_encoder(
    path: str | Path, trust: Trust = False, moved: str | Path | None = None
) -> Any:
    """Read the text encoder of a checkpoint; None if its model reads no texts.

    ``moved`` is where it is now, if it is a file or folder of others. A ValueError says why it
    cannot be used.
    """
    if (spec := read_config(path, trust)["text_encoder"]) is None:
        return None
    kind = find_part("text_encoder.name", str(spec.get("name")), TEXT_ENCODERS)
    if hasattr(kind, "load"):
        given = {} if moved is None else {"moved": moved}
        return kind.load(find_checkpoint(path), **given)
    return choose("text_encoder", spec, TEXT_ENCODERS)()


def find_checkpoint(path: str | Path) -> Path:
    """Find the checkpoint that a path means: the folder itself or the best of a run.

    CheckpointError: there is none, or a file of it is damaged, see :func:`check_checkpoint`.
    """
    path = Path(path)
    # The others: the run died between the renames that replace a folder.
    names = ("best", "best.old", "last", "last.old", "last.1", "last.1.old")
    for folder in [path, *(path / name for name in names)]:
        if (folder / WEIGHTS).exists():
            check_checkpoint(folder)
            return folder
    if not path.exists():
        raise CheckpointError(f"there is no checkpoint at {path}: no such folder")
    if path.is_file():
        raise CheckpointError(
            f"{path} is a file, and a checkpoint is a folder; published weights are converted by"
            f" fusion convert {path} --out FOLDER"
        )
    if (path / CONFIG).exists():
        raise CheckpointError(
            f"there is no checkpoint in {path} yet: the run has not ended its first epoch; go on"
            " with it by resume=true"
        )
    raise CheckpointError(
        f"there is no checkpoint in {path}: it has neither {WEIGHTS} nor best/{WEIGHTS};"
        " name the folder of a run (output=… in training)"
    )


def _check_size(make: Callable[[], nn.Module], folder: Path) -> None:
    """Compare the weights that a config asks for with those of the file, before any is made.

    A config of a few bytes can ask for more than there is memory. Parts that cannot be made without
    their weights are left to :func:`load_weights`.
    """
    try:
        with torch.device("meta"):
            wanted = sum(weight.numel() for weight in make().state_dict().values())
    except Exception:
        return
    there = sum(math.prod(shape) for shape in shapes_of(folder / WEIGHTS).values())
    if wanted > 2 * there + SMALL:
        raise CheckpointError(
            f"{folder} is of another architecture: its {CONFIG} asks for {wanted:,} numbers, and"
            f" its {WEIGHTS} has {there:,}; use the config that it was trained with"
        )


def load_weights(model: nn.Module, folder: Path) -> None:
    """Load weights into a model; a CheckpointError says what is damaged or different."""
    weights = read_tensors(folder / WEIGHTS)
    if different := find_difference(model.state_dict(), weights):
        raise CheckpointError(
            f"{folder} is of another architecture: {different}; use the config that it was trained"
            " with"
        )
    model.load_state_dict(weights)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; a CheckpointError says that it is missing or damaged."""
    return _read(path, safetensors.torch.load_file, "take another checkpoint of the run")


def read_state(path: Path) -> Any:
    """Read what ``torch.save`` wrote; anything but tensors and plain values is an error."""
    load = functools.partial(torch.load, map_location="cpu", weights_only=True)
    return _read(path, load, "start anew by output=DIR")


def _read(path: Path, load: Callable[[Path], Any], way_out: str) -> Any:
    try:
        return load(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing") from None
    except Exception as error:  # torch raises many kinds for damaged files
        why = reason_of(error)
        raise CheckpointError(f"{path} is damaged ({why}); {way_out}") from None
