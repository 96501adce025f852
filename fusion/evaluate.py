"""From a checkpoint to a table: what joins a model with the data that it is evaluated on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import nn

from fusion.builders import build_text_encoder, check_config, evaluation_settings
from fusion.checkpoint import load_model, load_text_encoder, read_config
from fusion.config import ConfigError, change_config, load_config
from fusion.data.collate import collate
from fusion.data.source import ClipSet, Source
from fusion.evaluation.retrieval import (
    Embedded,
    average_parts,
    describe_evaluation,
    embed,
    format_table,
    keep_complete,
    rank_directions,
    retrieval_table,
)
from fusion.files import write_atomically
from fusion.models import TEXT_ENCODERS
from fusion.training.launch import end_processes, make_accelerator


def evaluate(
    path: str | Path,
    chosen: str | None,
    json_path: str | Path | None,
    overrides: Iterable[str] = (),
) -> dict[str, Any]:
    """Evaluate a checkpoint and print the table.

    Args:
        path: folder of a run or of a checkpoint.
        chosen: a split of the data it was trained on (``test`` if not given), or a config whose
            data, its test split, is taken instead.
        json_path: file to write the result to; none if not given.
        overrides: changes to the config, such as ``data.protocol=all``.

    Returns:
        The result, as in the JSON file.

    Raises:
        ValueError: there is no such checkpoint, split or config, or data cannot be read.
    """
    config, split = read_config(path), chosen or "test"
    if chosen and chosen.endswith((".yaml", ".yml")):
        other, split = load_config(chosen, overrides), "test"
        spec = other["text_encoder"]
        config |= {"data": other["data"], "evaluation": other["evaluation"]}
    else:
        config = change_config(config, overrides)
        spec = config["text_encoder"]
    builders = check_config(config)
    settings = evaluation_settings(**config["evaluation"])
    model, text_encoder = load_model(path, settings["model"]), find_text_encoder(path, spec)
    accelerator = make_accelerator(config["trainer"].get("mixed_precision"), None)
    with accelerator.local_main_process_first():
        source: Source = builders["data"]()
        clips = source.clips(split, text_encoder)
    compare_widths(config["model"], clips)
    model = accelerator.prepare_model(model, evaluation_mode=True)
    embedded = embed_clips(model, clips, accelerator, settings["batch_size"])
    result = describe_result(source, split, embedded)
    if accelerator.is_main_process:
        print(format_table(result))
        if json_path:
            write_atomically(json_path, json.dumps(result, indent=1))
    del model
    end_processes(accelerator)
    return result


def embed_clips(
    model: nn.Module, clips: ClipSet, accelerator: Accelerator, batch_size: int
) -> Embedded:
    """Embed clips, each as a whole, see :func:`fusion.evaluation.retrieval.embed`."""
    embedded = embed(model, clips, collate, accelerator, batch_size)
    return embedded if clips.whole is None else average_parts(embedded, clips.whole)


def find_text_encoder(path: str | Path, spec: Mapping[str, Any]) -> Any:
    """Read the text encoder that belongs to a checkpoint.

    Args:
        path: of the checkpoint.
        spec: the ``text_encoder`` section of a config. If it names a file of vectors of the kind
            that the model was trained with, these are taken: the checkpoint has no copy.

    Raises:
        ValueError: there is none.
    """
    name = read_config(path)["text_encoder"].get("name")
    if not TEXT_ENCODERS[name].learns and spec.get("name") == name and spec.get("path"):
        return build_text_encoder(spec, sentences=(), seed=0)
    return load_text_encoder(path)


def compare_widths(model: Mapping[str, Any], clips: ClipSet) -> None:
    """Check that features are as wide as the model takes them.

    Raises:
        ConfigError: a modality has another width, or the data lack it.
    """
    clip = clips[0]
    for name, spec in model.get("modalities", {}).items():
        if spec is None:
            continue
        if name not in clip:
            known = ", ".join(key for key in clip if key != "id")
            raise ConfigError(f"the data has no modality {name!r} of model.modalities, but {known}")
        width = clip[name].shape[-1]
        if "dim" in spec and spec["dim"] != width:
            raise ConfigError(
                f"model.modalities.{name}.dim is {spec['dim']}, but the data are {width} wide"
            )


def describe_result(source: Source, split: str, embedded: Embedded) -> dict[str, Any]:
    """Rank the clips of a split and put the table together as its protocol says."""
    protocol = source.protocol(split)
    counted = protocol.counted or len(embedded.ids)
    gallery = keep_complete(embedded, protocol.needs)
    table = retrieval_table(rank_directions(gallery), counted)
    said = f"{protocol}; {source.describe(split)}; ties count as their mean place"
    return describe_evaluation(split, said, gallery, table, source.ceiling(split), counted)
