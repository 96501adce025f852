"""Curves of missing modalities of several methods: means over seeds, and paired tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fusion.config import ConfigError
from fusion.evaluation.metrics import DRAWS
from fusion.evaluation.missing import FUSED, LATE, LEFT_OUT, MASKED, ORDERS, SHARES, Curves
from fusion.evaluation.missing_table import (
    RULE,
    WAYS,
    describe_curves,
    difference,
    draw_first,
)

if TYPE_CHECKING:
    from fusion.report.comparison import Method


def compare_missing(methods: Sequence[Method], baseline: str) -> dict[str, Any] | None:
    """Compare the curves of methods, as far as all runs of a method have them.

    Returns:
        The section ``missing`` of a comparison, ready for JSON; None if no method has curves. For
        each modality and method it has what :func:`.missing_table.describe_curves` gives, and
        differences to the baseline, each method by its fused embedding, or the late average if it
        has none.

    Raises:
        ConfigError: runs were measured on other clips.
    """
    names = dict.fromkeys(name for method in methods for run in method.runs for name in run.curves)
    modalities = {}
    for name in names:
        means = {m.name: mean for m in methods if (mean := _mean_curves(m, name)) is not None}
        if means:
            first = next(iter(means.values()))
            alike = {m: c for m, c in means.items() if c.direction == first.direction}
            modalities[name] = _describe(alike, baseline)
    if not modalities:
        return None
    said = (
        "Recalls are means over seeds and orders. Intervals are over clips, by a bootstrap that is"
        f" the same for all methods ({DRAWS:,} times); p is not corrected for the number of"
        " comparisons."
    )
    return {"rule": RULE, "orders": ORDERS, "test": said, "modalities": modalities}


def _mean_curves(method: Method, modality: str) -> Curves | None:
    """Average what each clip found over the seeds of a method; None if a run has no such curves."""
    runs = method.runs
    if any(modality not in run.curves for run in runs):
        return None
    first, *others = (run.curves[modality] for run in runs)
    ways = [way for way in WAYS if way in first.found and all(way in o.found for o in others)]
    found = {way: first.found[way].copy() for way in ways}
    for run, other in zip(runs[1:], others, strict=True):
        same = set(other.names) == set(first.names) and len(other.queries) == len(first.queries)
        if not same or other.direction != first.direction:
            raise ConfigError(
                f"{runs[0].path} and {run.path} cannot be averaged: clips that lose {modality}"
                f" differ, or the direction ({first.direction} against {other.direction}); measure"
                " both anew: fusion evaluate RUN --missing NAMES"
            )
        rows = _rows_of(other, first)
        for way in ways:
            found[way] += other.found[way][rows]
    means = {way: values / len(runs) for way, values in found.items()}
    return first._replace(found=means)


def _rows_of(other: Curves, first: Curves) -> list[int]:
    """Return where the clips of the first are in the other; clips that are not searched stay."""
    places = {name: place for place, name in enumerate(other.names)}
    return [places[name] for name in first.names] + [*range(len(places), len(other.queries))]


def _describe(means: dict[str, Curves], baseline: str) -> dict[str, Any]:
    first, described = next(iter(means.values())), {}
    for method, curves in means.items():
        table = describe_curves(curves)
        described[method] = {key: table[key] for key in ("ways", "differences")}
        if method != baseline and baseline in means:
            described[method]["differences"] |= _against(curves, means[baseline], baseline)
    about = {"direction": first.direction, "has": first.has, "shares": list(SHARES)}
    return about | {"methods": described}


def _against(ours: Curves, theirs: Curves, baseline: str) -> dict[str, Any]:
    """Test a method against the baseline, where both have the clips in the order of the first."""
    rows = _rows_of(ours, theirs)
    found = {way: values[rows] for way, values in ours.found.items()}
    draws = draw_first(found, theirs.queries), draw_first(theirs.found, theirs.queries)
    tests = {}
    for treatment in (MASKED, LEFT_OUT):
        ways = [
            next(way for kind in (FUSED, LATE) if (way := f"{kind}, {treatment}") in one)
            for one in (found, theirs.found)
        ]
        sides = [(found[ways[0]], draws[0][ways[0]]), (theirs.found[ways[1]], draws[1][ways[1]])]
        tests[f"{ways[0]} - {baseline}: {ways[1]}"] = difference(theirs.queries, *sides)
    return tests
