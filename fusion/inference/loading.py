"""Load a trained model from a folder or from the Hugging Face hub."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fusion.checkpoint import CheckpointError, find_checkpoint, load_checkpoint, read_recipe
from fusion.data.datasets import DATASETS
from fusion.data.features.computed import EXTRACTORS, recipe_of
from fusion.data.features.store import open_store
from fusion.inference.card import read_facts
from fusion.inference.clip_files import is_pretrained
from fusion.inference.clip_model import ClipModel
from fusion.inference.model import Model

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


def load(
    name: str | Path,
    device: str | torch.device | None = None,
    weights: Mapping[str, str | Path] | None = None,
    trust: bool = False,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
) -> Any:
    """Load a trained model.

    Args:
        name: the folder of a run, of which the best checkpoint is taken; the folder of a
            checkpoint, such as ``Model.save_pretrained`` writes; or a name on the Hugging Face hub.
            ``clip:`` before a folder or a name of the hub: a pre-trained model of picture and text.
        device: where it computes; None: the first GPU if there is one, else the CPU.
        weights: files of weights by field, ``2d``, ``3d``, ``sound``, of the networks that make
            its features, where they cannot be found: see :class:`.features.FilmFeatures`; and
            ``text``, where its language model or its word vectors are now.
        trust: import the parts that its config names by import path; this runs their code.
        revision: of a model on the hub: a branch, a tag or a commit; None: the main branch.
        token: of an account of the hub; None: the one that is logged in.
        cache_dir: where models of the hub are kept; None: where the hub's programs keep them.
        force_download: load it from the hub again.
        local_files_only: only take what was loaded from the hub before.

    Returns:
        A :class:`fusion.Model`; of ``clip:`` a :class:`.clip_model.ClipModel`, which embeds texts,
        films and pictures in the same way.

    Raises:
        ValueError: there is no such model, or it cannot be read.
    """
    download: dict[str, Any] = {"revision": revision, "token": token, "cache_dir": cache_dir}
    download |= {"force_download": force_download, "local_files_only": local_files_only}
    if is_pretrained(name):
        return ClipModel(str(name), device, **download)
    folder = find_model(name, **download)
    network, text_encoder, config = load_checkpoint(folder, trust, (weights or {}).get("text"))
    if not hasattr(network, "combinations"):
        raise ValueError(
            f"{name}: this model answers questions or classifies films and embeds nothing; name a"
            " run of retrieval, such as one of fusion train eao"
        )
    recipe = find_recipe(folder, config)
    return Model(network, text_encoder, config, recipe, device, weights, read_facts(folder))
