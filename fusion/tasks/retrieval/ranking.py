"""Embed and rank the clips of a split, on all processes together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from fusion.config import ConfigError
from fusion.data.datasets.dataset import ClipSet, Source
from fusion.evaluation.embed import Embedded, average_parts, embed, keep_complete
from fusion.evaluation.retrieval import Ranked, rank_directions
from fusion.evaluation.settings import Settings
from fusion.modalities import ORDER, Direction, directions
from fusion.parts import nearest


def embed_clips(
    model: nn.Module,
    clips: ClipSet,
    accelerator: Accelerator,
    batch_size: int,
    workers: int = 0,
    combinations: Sequence[str] | None = None,
) -> Embedded:
    """Embed clips, each as a whole, see :func:`fusion.evaluation.embed.embed`."""
    shows = list(clips.shows)
    each = shows if clips.whole is None else None
    how: dict[str, Any] = {"combinations": combinations, "shows": each, "workers": workers}
    embedded = embed(model, clips, accelerator, batch_size, **how)
    if clips.whole is not None:
        embedded = average_parts(embedded, clips.whole)
    items = tuple(clips.captions)
    return dataclasses.replace(embedded, shows=torch.tensor(shows), items=items)


def validation_ways(settings: Settings, model: Any, best: str | None) -> list[Direction]:
    """List the directions that are ranked after each epoch of training, in the order of a table.

    Raises:
        ConfigError: ``evaluation.validation`` names one that the model does not embed.
    """
    embedded = set(model.combinations)
    known = [d for d in directions(model.modalities) if {*d.query, *d.gallery} <= embedded]
    text = (ORDER[0][0],)
    if settings.validation is None:
        chosen = {str(way) for way in known if text in (way.query, way.gallery)}
        chosen = chosen or {str(way) for way in known}
    else:
        chosen = set(settings.validation)
        if unknown := sorted(chosen - {str(way) for way in known}):
            raise ConfigError(
                f"evaluation.validation: {unknown[0]!r} is not evaluated with this model"
                f"{nearest(unknown[0], [str(way) for way in known], 'choose from')}"
            )
    chosen.add((best or "").rpartition(" ")[0])
    return [way for way in known if str(way) in chosen]


def needed_for(ways: Sequence[Direction]) -> list[str]:
    """List the combinations that directions compare."""
    return list(dict.fromkeys(part for way in ways for part in way.query + way.gallery))


def rank_gallery(
    source: Source, split: str, embedded: Embedded, accelerator: Accelerator
) -> dict[str, Ranked]:
    """Rank the clips in the gallery of a split in every direction, on all processes together."""
    gallery = keep_complete(embedded, source.protocol_of(split).needs)
    return rank_directions(gallery, device=accelerator.device, together=True)
