"""Whether late averages can be tuned on the validation split, and what a result says of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fusion.config import ConfigError
from fusion.data.datasets.dataset import Source
from fusion.data.features.problems import warn
from fusion.evaluation.embed import Embedded
from fusion.evaluation.late_fusion import RULE, TUNED, plain_name, rank_tuned, tune
from fusion.evaluation.retrieval import Ranked

SETTING = "evaluation.tune_late_average"
LEAVE_OUT = f"{SETTING}=false leaves the tuned rows out"


def check_validation(source: Source) -> None:
    """Check before training that the data can tune late averages.

    Raises:
        ConfigError: there is no validation split, or it is the file of the test.
    """
    if reason := _why_not(source, "test"):
        raise ConfigError(f"{SETTING}: {reason}; or {LEAVE_OUT}")


def can_tune(source: Source, split: str) -> bool:
    """Return whether late averages of a split can be tuned on validation; warn if they cannot."""
    if reason := _why_not(source, split):
        warn(f"{split}: no tuned late averages: {reason}; {LEAVE_OUT}")
    return not reason


def add_tuned_rows(
    embedded: Embedded, ranked: Mapping[str, Ranked], split: str, validation: Embedded | None
) -> tuple[dict[str, Ranked], dict[str, Any]]:
    """Add the tuned rows to the plain ones of a split.

    Args:
        embedded: the clips of the split.
        ranked: its plain rows.
        split: its name.
        validation: what is tuned on; None: nothing is.

    Returns:
        The rows, and what a result says of them: its section ``late_fusion``, or nothing.
    """
    if validation is None:
        return dict(ranked), {}
    if _names(validation) <= _names(embedded):
        warn(f"{split}: no tuned late averages: it has all clips of validation; {LEAVE_OUT}")
        return dict(ranked), {}
    tuned = tune(validation)
    directions = {way: one.as_json() for way, one in tuned.items()}
    section = {"rule": RULE, "clips": validation.num_clips, "directions": directions}
    return rank_tuned(embedded, ranked, tuned), {"late_fusion": section}


def with_tuned_ceilings(
    ceiling: Mapping[str, Any] | None, rows: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Give tuned rows the ceiling of their direction: of all who perceive the same modalities."""
    if not ceiling:
        return None
    tuned = {row: plain_name(row) for row in rows if row.endswith(TUNED)}
    return {**ceiling, **{row: ceiling[way] for row, way in tuned.items() if way in ceiling}}


def _why_not(source: Source, split: str) -> str:
    if split == "validation":
        return "they are tuned on this split, so it needs another test"
    if "validation" not in source.splits:
        return "they are tuned on the validation split, which the data lacks: name data.validation"
    if source.files.get(split) == (file := source.files.get("validation")) and file is not None:
        return f"data.validation and data.{split} are one file, {file}; name another"
    return ""


def _names(embedded: Embedded) -> set[tuple[str, str]]:
    texts = [item.text for item in embedded.items or ()] or [""] * len(embedded.ids)
    return set(zip(embedded.ids, texts, strict=True))
