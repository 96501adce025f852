"""Take modalities away from the clips of a test: the section ``missing`` of a result."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn

from fusion.config import ConfigError
from fusion.data.datasets.dataset import ClipSet
from fusion.data.datasets.dropping import WithoutModality
from fusion.data.datasets.protocols import Protocol
from fusion.evaluation.embed import Embedded, average_parts, embed, keep_complete
from fusion.evaluation.missing import ORDERS, Chosen, missing_curves
from fusion.evaluation.missing_table import RULE, curves_to_arrays, describe_curves
from fusion.evaluation.settings import Settings
from fusion.modalities import ORDER, Direction, letters_of, parse_direction, spell
from fusion.parts import nearest

KEY = "evaluation.missing"  # of the config
OPTION = "--missing"
Without = Mapping[str, Mapping[str, Tensor]]  # by modality, then by combination: (N, E)


def check_missing(settings: Settings, modalities: Sequence[str]) -> dict[str, Direction]:
    """Return the direction for each modality that is taken away.

    Raises:
        ConfigError: a modality is unknown or named twice, or the direction does not fit.
    """
    chosen = settings.missing or []
    if settings.missing_direction is not None and not chosen:
        raise ConfigError(f"evaluation.missing_direction says nothing without {KEY}; name {OPTION}")
    found = {}
    for name in chosen:
        if name not in modalities:
            raise ConfigError(
                f"{KEY} ({OPTION}): {name!r} is no modality of the model"
                f"{nearest(name, list(modalities), 'choose from')}"
            )
        if name in found:
            raise ConfigError(f"{KEY} ({OPTION}) names {name} twice; leave one out")
        found[name] = choose_direction(name, settings.missing_direction, modalities)
    return found


def choose_direction(modality: str, given: str | None, modalities: Sequence[str]) -> Direction:
    """Choose in which direction clips are ranked that lose a modality.

    ``given`` is the user's choice, in which ``v+a`` is the same as ``va``. Without one the first of
    text, video and audio that is not taken away asks, and all the others are found: ``t->va`` for
    video and for audio, ``v->ta`` for text.

    Raises:
        ConfigError: it is no direction, or the modality is not beside another on one of its sides.
    """
    letters = letters_of(modalities)
    if given is None:
        names = [letters[x] for x in letters]
        asks = next(name for name in (*ORDER, *names) if name in names and name != modality)
        direction = Direction((asks[0],), (spell(name for name in names if name != asks),))
        way_out = "this needs a model of three modalities or more"
    else:
        try:
            read = parse_direction(given, modalities)
        except ValueError as error:
            raise ConfigError(f"--direction: {error}") from None
        joined = (
            "".join(x for x in letters if x in "".join(side)) for side in (read.query, read.gallery)
        )
        direction = Direction(*((side,) for side in joined))
        way_out = "choose another --direction, such as t->va for audio and v->ta for text"
    side = next((s for s in (direction.query[0], direction.gallery[0]) if modality[0] in s), "")
    if len(side) < 2:
        where = "is alone on a side" if side else "is on no side"
        raise ConfigError(
            f"{OPTION} {modality}: {modality} {where} of {direction}, so there is nothing to"
            f" compare where it is missing; {way_out}"
        )
    return direction


def embed_without(
    model: nn.Module,
    clips: ClipSet,
    accelerator: Accelerator,
    batch_size: int,
    directions: Mapping[str, Direction],
    embedded: Embedded,
) -> Without:
    """Embed what changes where a modality is missing, with each taken away from all clips.

    It is called on every process. ``embedded`` are the same clips as they are, in every
    combination that the model has.
    """
    without = {}
    for name, direction in directions.items():
        sides = [side for side in (*direction.query, *direction.gallery) if name[0] in side]
        combinations = [c for c in (*sides, name[0]) if c in embedded.embeddings]
        shows = list(clips.shows) if clips.whole is None else None
        taken = WithoutModality(clips, name)
        found = embed(Chosen(model, combinations), taken, accelerator, batch_size, shows=shows)
        if clips.whole is not None:
            found = average_parts(found, clips.whole)
        without[name] = found.embeddings
    return without


def measure_missing(
    embedded: Embedded, without: Without, directions: Mapping[str, Direction], protocol: Protocol
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Describe what is found where clips lack each modality, as the protocol of the test says.

    Returns the section ``missing`` of a result, ready for JSON, and arrays for comparisons.
    """
    counted, captions = protocol.counted or embedded.num_clips, embedded.captions
    gallery = keep_complete(embedded, protocol.needs)
    described: dict[str, Any] = {}
    arrays: dict[str, NDArray[Any]] = {}
    for name, direction in directions.items():
        rows = dataclasses.replace(embedded, embeddings=without[name])
        gone = keep_complete(rows, protocol.needs).embeddings
        curves = missing_curves(gallery, gone, name, direction, counted, captions)
        described[name] = describe_curves(curves)
        arrays |= curves_to_arrays(name, curves)
    return {"rule": RULE, "orders": ORDERS, "modalities": described}, arrays
