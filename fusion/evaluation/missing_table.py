"""Curves of missing modalities as numbers with intervals, and as arrays for comparisons.

Shapes: C clips, X further clips that count, S shares.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion.evaluation.metrics import RECALLS, Floats, draw_recalls, interval_of, paired_test
from fusion.evaluation.missing import FUSED, LATE, LEFT_OUT, MASKED, ORDERS, SHARES, Curves

RULE = (
    "a modality is taken away from a share of the test clips that have it, in"
    f" {ORDERS} random orders that are the same for every model: a clip that lacks it at 30 % lacks"
    " it at 60 % too; masking token: EAO's masking token stands in its place, and zeros in MCN and"
    " AVLnet; left out: the clip is embedded by what it still has; a clip with nothing left on a"
    " side is not ranked and counts as a miss"
)
WAYS = tuple(f"{kind}, {treatment}" for kind in (FUSED, LATE) for treatment in (MASKED, LEFT_OUT))
DIFFERENCES = {  # one way minus another
    f"{FUSED} - {LATE}, {MASKED}": (WAYS[0], WAYS[2]),
    f"{FUSED} - {LATE}, {LEFT_OUT}": (WAYS[1], WAYS[3]),
    f"{MASKED} - {LEFT_OUT}, {FUSED}": (WAYS[0], WAYS[1]),
    f"{MASKED} - {LEFT_OUT}, {LATE}": (WAYS[2], WAYS[3]),
}
PREFIX = "missing"  # of the names of arrays


def describe_curves(curves: Curves) -> dict[str, Any]:
    """Summarise curves, ready for JSON.

    Returns:
        ``direction``; ``has``, the clips that have the modality; ``shares`` in per cent; for each
        of the ``ways`` the recalls (R@k) and ``R@1_interval`` at each share; and
        ``differences`` in R@1 of two ways, with intervals and p, see
        :func:`fusion.evaluation.metrics.paired_test`.
    """
    draws = draw_first(curves.found, curves.queries)
    return {
        "direction": curves.direction,
        "has": curves.has,
        "shares": list(SHARES),
        "ways": {
            way: {
                **{
                    f"R@{k}": recalls(found[..., place], curves.queries)
                    for place, k in enumerate(RECALLS)
                },
                "R@1_interval": [interval_of(column) for column in draws[way].T],
            }
            for way, found in curves.found.items()
        },
        "differences": {
            name: difference(curves.queries, *((curves.found[w], draws[w]) for w in pair))
            for name, pair in DIFFERENCES.items()
            if all(way in curves.found for way in pair)
        },
    }


def recalls(found: Floats, queries: Floats) -> list[float]:
    """Return the recall at each share in per cent, of (C + X, S) queries that were found."""
    return [float(value) for value in 100 * found.sum(axis=0) / queries.sum()]


def draw_first(found: Mapping[str, Floats], queries: Floats) -> dict[str, Floats]:
    """Draw clips with replacement, the same for all ways: (draws, S) R@1 of each way."""
    names = list(found)
    columns = np.concatenate([found[name][..., 0] for name in names], axis=1)
    drawn = draw_recalls(columns, np.repeat(queries[:, None], columns.shape[1], axis=1))
    return dict(zip(names, np.split(drawn, len(names), axis=1), strict=True))


def difference(
    queries: Floats, ours: tuple[Floats, Floats], theirs: tuple[Floats, Floats]
) -> dict[str, Any]:
    """Test at each share whether two ways differ in R@1; each is what it found, and its draws."""
    means = [recalls(found[..., 0], queries) for found, _ in (ours, theirs)]
    tests = [paired_test(a, b) for a, b in zip(ours[1].T, theirs[1].T, strict=True)]
    return {
        "R@1": [a - b for a, b in zip(*means, strict=True)],
        **{key: [test[key] for test in tests] for key in tests[0]},
    }


def curves_to_arrays(modality: str, curves: Curves) -> dict[str, NDArray[Any]]:
    """Name the arrays of the curves, for the file that comparisons read."""
    values = {"names": np.asarray(curves.names), "queries": curves.queries, **curves.found}
    values["direction"] = np.asarray(curves.direction)
    values["has"] = np.asarray(curves.has)
    return {f"{PREFIX} {modality}: {name}": array for name, array in values.items()}


def curves_of_arrays(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Curves]:
    """Read what :func:`curves_to_arrays` named, by modality; a KeyError says what is lacking."""
    parts: dict[str, dict[str, NDArray[Any]]] = {}
    for name, array in arrays.items():
        head, _, part = name.partition(": ")
        if head.startswith(f"{PREFIX} "):
            parts.setdefault(head.removeprefix(f"{PREFIX} "), {})[part] = array
    return {
        modality: Curves(
            str(part["direction"]),
            int(part["has"]),
            tuple(part["names"].tolist()),
            part["queries"],
            {way: part[way] for way in WAYS if way in part},
        )
        for modality, part in parts.items()
    }
