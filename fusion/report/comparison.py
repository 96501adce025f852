"""Methods beside one another on the same clips: means over seeds, intervals, paired tests.

Shapes: N items.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion.evaluation.bootstrap import DRAWS, Floats, draw_recalls, interval_of, paired_test
from fusion.evaluation.retrieval import CAPTION
from fusion.modalities import directions

METRICS = ("R@1", "R@5", "R@10", "R@50", "MedR", "MeanR")
FUSED, LATE = "t->va", "t->v+a"
OWN_WAY = f"{FUSED} or {LATE}"  # the headline
OWN_WAY_RULE = (
    "text to video and audio, each method's own way: "
    f"{FUSED} where the method embeds va as one, otherwise {LATE}"
)
CAPTION_LETTER = CAPTION[0]


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run left.

    Attributes:
        path: its folder, as the user calls it.
        seed: that it was trained with.
        result: table of the test, see :func:`fusion.report.tables.describe_evaluation`.
        cost: see :func:`fusion.commands.cost.describe_cost`.
        ids: names of the N items of the test, all different.
        clips: (N,) int64 numbers of their clips; captions of one clip share it.
        test: digest of the items' names and sentences, see ``pack_ranks``.
        found: for each direction the names of the queries whose clip came first.
    """

    path: str
    seed: int
    result: Mapping[str, Any]
    cost: dict[str, Any]
    ids: Sequence[str]
    clips: NDArray[np.int64]
    test: str
    found: Mapping[str, Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Method:
    """Runs that differ in their seed alone.

    Attributes:
        name: what tables call it.
        runs: one for each seed, at least one.
    """

    name: str
    runs: Sequence[Run]

    def embeds(self, direction: str, part: str = "directions") -> bool:
        """Say whether every run has a direction, in this part of its result."""
        return all(direction in run.result.get(part, {}) for run in self.runs)

    @property
    def own_way(self) -> str | None:
        """The direction that stands for text to video and audio, see ``OWN_WAY_RULE``."""
        return next((way for way in (FUSED, LATE) if self.embeds(way)), None)


def compare_methods(methods: Sequence[Method], baseline: str) -> dict[str, Any]:
    """Put methods beside one another.

    Args:
        methods: tested on the same clips in the same way, with different names.
        baseline: name of the method that the others are compared with.

    Returns:
        Ready for JSON: of each method ``cost``, ``seeds``, ``data`` of the test, and in
        ``directions``, ``headline`` and ``by_cosine`` the rows: means over seeds of the metrics in
        per cent, ``R@1_of_seeds``, ``R@1_deviation`` over seeds, ``R@1_interval`` over clips, and
        ``difference`` to the baseline, see :func:`fusion.evaluation.bootstrap.paired_test`. The
        rest says how the rows are to be read.
    """
    first = methods[0].runs[0].result
    ways = list_directions(methods)
    columns = [(m.name, way) for m in methods for way in ways if m.embeds(way)]
    draws = dict(zip(columns, _draw(methods, columns).T, strict=True))
    base = next(m for m in methods if m.name == baseline)
    described = {}
    for method in methods:
        rows = {}
        for way in (way for way in ways if method.embeds(way)):
            rows[way] = _row(method, way, draws[method.name, way])
            if method is not base and base.embeds(way):
                rows[way]["difference"] = _difference(method, base, (way, way), draws)
        described[method.name] = {
            "runs": [run.path for run in method.runs],
            "seeds": [run.seed for run in method.runs],
            "similarity": method.runs[0].result["similarity"],
            "data": known_values(method.runs, "data"),
            "cost": _mean_cost(method.runs),
            "headline": _headline(method, base, rows, draws),
            "directions": rows,
            "by_cosine": _rows_by_cosine(method, ways),
        }
    protocols = {run.result["protocol"] for method in methods for run in method.runs}
    kept = ("set", "gallery", "counted", "clips", "chance", "chance_among_captions")
    return {
        # Where files or features differ, the sentence of one run is not true of the others.
        "protocol": protocols.pop() if len(protocols) == 1 else first["protocol_parts"]["rule"],
        **{key: first[key] for key in kept if key in first},
        "ceiling": first.get("ceiling"),
        "directions": ways,
        "baseline": baseline,
        "headline": OWN_WAY_RULE,
        "test": _say_test(first, baseline),
        "methods": described,
    }


def list_directions(methods: Sequence[Method]) -> list[str]:
    """List every direction that any method has, fused ones before late averages."""
    results = [run.result for method in methods for run in method.runs]
    modalities = {name: None for result in results for name in result["clips"]["missing"]}
    there = {way: None for result in results for way in result["directions"]}
    known = [str(direction) for direction in directions(modalities)]
    return [way for way in known if way in there] + [way for way in there if way not in known]


def asks_by_caption(result: Mapping[str, Any], way: str) -> bool:
    """Say whether every caption is a query; otherwise every clip is."""
    return "captions" in result["clips"] and CAPTION_LETTER in way.partition("->")[0]


def _draw(methods: Sequence[Method], columns: Sequence[tuple[str, str]]) -> Floats:
    run = methods[0].runs[0]
    result = run.result
    numbers, owner = np.unique(run.clips, return_inverse=True)
    place = {name: int(clip) for name, clip in zip(run.ids, owner, strict=True)}
    # Clips that count but could neither ask nor be found: a miss of every method.
    missing = max(0, result["counted"] - len(numbers))
    size, named = len(numbers) + missing, {method.name: method for method in methods}
    hits, asked = np.zeros((size, len(columns))), np.ones((size, len(columns)))
    for column, (name, way) in enumerate(columns):
        runs = named[name].runs
        for one in runs:
            clips = [place[query] for query in one.found[way]]
            hits[:, column] += np.bincount(clips, minlength=size) / len(runs)
        if asks_by_caption(result, way):
            asked[:, column] = np.bincount(owner, minlength=size)
            # How the captions of missing clips are shared among these is not known.
            queries = runs[0].result["directions"][way]["queries"]
            asked[len(numbers) :, column] = (queries - len(owner)) / max(1, missing)
    return draw_recalls(hits, asked)


def _row(
    method: Method, way: str, draws: Floats | None, part: str = "directions"
) -> dict[str, Any]:
    rows = [run.result[part][way] for run in method.runs]
    values = [row["R@1"] for row in rows]
    row: dict[str, Any] = {key: statistics.fmean(r[key] for r in rows) for key in METRICS}
    row["R@1_of_seeds"] = values
    row["R@1_deviation"] = statistics.stdev(values) if len(values) > 1 else None
    if draws is not None:
        row["R@1_interval"] = interval_of(draws)
    else:  # no ranks to draw from
        row["R@1_interval"] = rows[0].get("R@1_interval") if len(rows) == 1 else None
    return row | {key: rows[0][key] for key in ("queries", "gallery") if key in rows[0]}


def _difference(
    method: Method, base: Method, ways: tuple[str, str], draws: Mapping[tuple[str, str], Floats]
) -> dict[str, Any]:
    """Compare a method in one direction with the baseline in one."""
    ours, theirs = (
        statistics.fmean(run.result["directions"][way]["R@1"] for run in m.runs)
        for m, way in zip((method, base), ways, strict=True)
    )
    test = paired_test(draws[method.name, ways[0]], draws[base.name, ways[1]])
    return {"R@1": ours - theirs, **test}


def _headline(
    method: Method,
    base: Method,
    rows: Mapping[str, Any],
    draws: Mapping[tuple[str, str], Floats],
) -> dict[str, Any] | None:
    way = method.own_way
    if way is None:
        return None
    row = {key: value for key, value in rows[way].items() if key != "difference"}
    row["direction"] = way
    if method is not base and base.own_way is not None:
        row["difference"] = _difference(method, base, (way, base.own_way), draws)
    return row


def _rows_by_cosine(method: Method, ways: Sequence[str]) -> dict[str, Any]:
    has = [way for way in ways if method.embeds(way, "by_cosine")]
    return {way: _row(method, way, None, "by_cosine") for way in has}


def known_values(runs: Sequence[Run], key: str) -> list[Any]:
    """List what runs say of their cost, or of the ``data`` of their test; each value once.

    Older runs do not say everything.
    """
    said = [run.cost | {"data": run.result["protocol_parts"]["data"]} for run in runs]
    return list(dict.fromkeys(facts[key] for facts in said if facts.get(key) is not None))


def _mean_cost(runs: Sequence[Run]) -> dict[str, Any]:
    """Average what runs cost; the peak is the highest, and devices are all named."""
    costs = [run.cost for run in runs]
    seconds = [c["training_seconds"] for c in costs if c["training_seconds"] is not None]
    return {
        "parameters": costs[0]["parameters"],
        "gflop_per_clip": statistics.fmean(c["gflop_per_clip"] for c in costs),
        "training_seconds": statistics.fmean(seconds) if seconds else None,
        "peak_memory_bytes": max(c["peak_memory_bytes"] for c in costs),
        "training_clips": sorted(known_values(runs, "training_clips")),
        "device": ", ".join(known_values(runs, "device")),
        "processes": sorted(known_values(runs, "processes")),
        "threads": sorted(known_values(runs, "threads")),
    }


def _say_test(result: Mapping[str, Any], baseline: str) -> str:
    captions = ", each with all its captions" if "captions" in result["clips"] else ""
    return (
        f"differences are R@1 minus that of {baseline} over the same queries, by name; drawn are"
        f" clips, not runs: {DRAWS:,} times {result['counted']:,} clips with replacement{captions},"
        " the same for all methods, after the hits of each query are averaged over a method's"
        " seeds, so that intervals say what other clips would give and not what other seeds would;"
        " a query that a direction of one run lacks is a miss; p is two-sided and not corrected for"
        " the number of comparisons; the interval in the report of a run has draws of its own, so"
        " it may differ a little"
    )
