"""From a checkpoint to a table: what joins a model with the data that it is evaluated on."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import Subset

from fusion.builders import build_text_encoder, check_config, evaluation_settings
from fusion.checkpoint import load_model, load_text_encoder, read_config
from fusion.config import ConfigError, change_config, load_config
from fusion.data.datasets.collate import collate
from fusion.data.datasets.source import ClipSet, Source
from fusion.evaluation.embed import Embedded, average_parts, embed, keep_complete
from fusion.evaluation.rescoring import Rescoring, rescored_tables
from fusion.evaluation.retrieval import Ranked, rank_directions, retrieval_table
from fusion.files import write_atomically
from fusion.models import TEXT_ENCODERS
from fusion.report.retrieval import describe_evaluation
from fusion.report.tables import format_table
from fusion.training.launch import end_processes, make_accelerator
from fusion.words import words_of


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
        overrides = list(overrides)
        other, split = load_config(chosen, overrides), "test"
        spec = other["text_encoder"]
        named = any(override.startswith("text_encoder") for override in overrides)
        config |= {"data": other["data"], "evaluation": other["evaluation"]}
    else:
        config = change_config(config, overrides)
        spec, named = config["text_encoder"], True
    builders = check_config(config)
    settings = evaluation_settings(**config["evaluation"])
    text_encoder = find_text_encoder(path, spec, own_first=not named)
    accelerator = make_accelerator(config["trainer"].get("mixed_precision"), None)
    with accelerator.local_main_process_first():
        source: Source = builders["data"]()
        clips = source.clips(split, text_encoder)
    compare_widths(config["model"], clips)
    # Last, as it takes longest: what is wrong with the data is said at once.
    model = accelerator.prepare_model(load_model(path, settings["model"]), evaluation_mode=True)
    bank = embed_bank(model, source, text_encoder, accelerator, settings)
    embedded = embed_clips(model, clips, accelerator, settings["batch_size"])
    result, _ = describe_result(source, split, embedded, settings["rescoring"], bank)
    if accelerator.is_main_process:
        print(format_table(result))
        file = getattr(text_encoder, "path", None)  # texts of other vectors mean nothing to it
        print(f"texts     {file or f'encoder in {path}'}", file=sys.stderr)
        if json_path:
            write_atomically(json_path, json.dumps(result, indent=1))
    del model
    end_processes(accelerator)
    return result


def embed_clips(
    model: nn.Module, clips: ClipSet, accelerator: Accelerator, batch_size: int
) -> Embedded:
    """Embed clips, each as a whole, see :func:`fusion.evaluation.embed.embed`."""
    embedded = embed(model, clips, collate, accelerator, batch_size)
    if clips.whole is not None:
        embedded = average_parts(embedded, clips.whole)
    texts = tuple(caption.text for caption in clips.captions)
    unknown = torch.zeros(len(embedded.ids), dtype=torch.bool)
    for item in (~embedded.present.get("text", ~unknown)).nonzero()[:, 0].tolist():
        unknown[item] = bool(words_of(texts[item]))
    shows = torch.tensor(clips.shows)
    return dataclasses.replace(embedded, shows=shows, unknown=unknown, texts=texts)


def embed_bank(
    model: nn.Module,
    source: Source,
    text_encoder: Any,
    accelerator: Accelerator,
    settings: Mapping[str, Any],
) -> Embedded | None:
    """Embed training clips at even distances for the bank of QB-Norm, if it is asked for.

    Args:
        model: on its device.
        source: the data.
        text_encoder: maps a sentence to (L, D) features.
        accelerator: the processes, all of which call this.
        settings: see :func:`fusion.builders.evaluation_settings`.

    Raises:
        ConfigError: there are no training clips.
    """
    rescoring: Rescoring = settings["rescoring"]
    if not rescoring.needs_bank:
        return None
    lacking = "evaluation.rescoring: qb_norm takes its bank of queries from the training split"
    if "train" not in source.splits:
        raise ConfigError(
            f"{lacking}, which the data lacks; name one under data.train, or leave qb_norm out"
        )
    try:
        with accelerator.local_main_process_first():
            clips = source.clips("train", text_encoder)
    except ValueError as error:
        raise ConfigError(f"{lacking}: {error}") from None
    number = min(rescoring.qb_norm_bank, len(clips))
    chosen = [place * len(clips) // number for place in range(number)]
    return embed(model, Subset(clips, chosen), collate, accelerator, settings["batch_size"])


def find_text_encoder(path: str | Path, spec: Mapping[str, Any], own_first: bool = False) -> Any:
    """Read the text encoder that belongs to a checkpoint.

    Args:
        path: of the checkpoint.
        spec: the ``text_encoder`` section of a config. If it names a file of vectors of the kind
            that the model was trained with, these are taken: the checkpoint has no copy.
        own_first: take them only where those that the checkpoint refers to are not there.

    Raises:
        ValueError: there is none.
    """
    name = read_config(path)["text_encoder"].get("name")
    fits = not TEXT_ENCODERS[name].learns and spec.get("name") == name and spec.get("path")
    if own_first or not fits:
        try:
            return load_text_encoder(path)
        except ValueError:
            if not fits:
                raise
    return build_text_encoder(spec, sentences=(), seed=0)


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


def describe_result(
    source: Source, split: str, embedded: Embedded, rescoring: Rescoring, bank: Embedded | None
) -> tuple[dict[str, Any], bytes]:
    """Rank the clips of a split and put the table together as its protocol says.

    Args:
        source: the data.
        split: of it.
        embedded: all its clips.
        rescoring: which rescored tables are added.
        bank: what :func:`embed_bank` gives.

    Returns:
        The table, ready for JSON, with its ``protocol`` also in parts: ``rule``, and the ``data``,
        by which tables that are comparable may differ. And the ranks that its rows are made of,
        see :func:`pack_ranks`.
    """
    protocol = source.protocol(split)
    counted, captions = protocol.counted or embedded.num_clips, embedded.captions
    gallery = keep_complete(embedded, protocol.needs)
    ranked = rank_directions(gallery)
    table = retrieval_table(ranked, counted, captions)
    rescored = rescored_tables(gallery, rescoring, bank, counted, captions)
    parts = {"rule": protocol.describe(gallery.num_clips), "data": source.describe(split)}
    said = f"{parts['rule']}; {parts['data']}; ties count as their mean place"
    by_cosine = None
    if gallery.similarity != "cosine":
        by_cosine = retrieval_table(rank_directions(gallery.by_cosine()), counted, captions)
    ceiling = source.ceiling(split)
    result = describe_evaluation(split, said, gallery, table, ceiling, counted, rescored, by_cosine)
    return result | {"protocol_parts": parts}, pack_ranks(gallery, ranked)


def pack_ranks(gallery: Embedded, ranked: Mapping[str, Ranked]) -> bytes:
    """Write the ranks of every query for comparisons, as an npz file.

    It has for each direction ``DIRECTION ranks`` (Q,) float64 and ``DIRECTION queries`` (Q,), the
    names of the items that asked; ``ids`` (N,) are those of all items and ``clips`` (N,) int64 the
    numbers of their clips. Items of one name, captions of a clip, are numbered: ``x``, ``x#2``.
    ``test`` is a digest of these names and their texts, the same for the same test.
    """
    names = np.asarray(_number_repeated(gallery.ids))
    arrays: dict[str, Any] = {"ids": names, "clips": gallery.clips.numpy()}
    if gallery.texts is not None:
        pairs = sorted(zip(names.tolist(), gallery.texts, strict=True))
        arrays["test"] = np.asarray(hashlib.sha256(json.dumps(pairs).encode()).hexdigest())
    for direction, found in ranked.items():
        arrays[f"{direction} ranks"] = found.ranks
        arrays[f"{direction} queries"] = names[found.rows.numpy()]
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def _number_repeated(names: Sequence[str]) -> list[str]:
    seen: Counter[str] = Counter()
    numbered = []
    for name in names:
        seen[name] += 1
        numbered.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return numbered
