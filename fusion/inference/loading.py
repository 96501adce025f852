"""Find a trained model in a folder or on the Hugging Face hub, and the recipe of its features."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fusion.checkpoint import CheckpointError, find_checkpoint, read_recipe
from fusion.data.datasets import DATASETS
from fusion.data.features.readers import EXTRACTORS, recipe_of
from fusion.data.features.store import open_store

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def find_model(name: str | Path, **options: Any) -> Path:
    """Return the folder of a checkpoint: of a run, of itself, or downloaded from the hub.

    ``options`` of the download are those of ``huggingface_hub.snapshot_download``.

    Raises:
        CheckpointError: there is none; one line.
    """
    path = Path(name).expanduser()
    if path.exists() or not _HUB_NAME.fullmatch(str(name)):
        return find_checkpoint(path)
    hub: Any = importlib.import_module("huggingface_hub")  # slow to import
    try:
        return find_checkpoint(hub.snapshot_download(str(name), **options))
    except CheckpointError:
        raise
    except Exception as error:  # of the hub and of the connection
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"there is no folder {name}, and no model of this name can be loaded from the Hugging"
            f" Face hub ({reason}); name the folder of a run or of a checkpoint"
        ) from None


def find_recipe(folder: Path, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return how a model's features were made; of older checkpoints what their config says.

    None: it is not known, as of published features.
    """
    if (recipe := read_recipe(folder)) is not None:
        return recipe
    name = config["data"].get("name")
    if name not in ("demo", "videos"):
        return None
    build: Any = DATASETS[name]
    parameters = inspect.signature(build).parameters.values()
    data = {parameter.name: parameter.default for parameter in parameters} | config["data"]
    if store := data.get("store"):
        try:
            features = open_store(store).recipe()
        except ValueError:  # it is not there any more
            return None
    else:
        features = (
            recipe_of(data["video_features"]) if data["video_features"] in EXTRACTORS else None
        )
    if features is None:
        return None
    limits = {key: data[key] for key in ("max_video_tokens", "max_audio_frames")}
    return {"features": features, **limits, "long_clips": "clip"}
