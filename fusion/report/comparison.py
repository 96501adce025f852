"""Methods beside one another on the same clips: means over seeds, intervals, paired tests."""

from __future__ import annotations

import dataclasses
import functools
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion.evaluation.metrics import (
    DRAWS,
    SEED,
    Floats,
    draw_recalls,
    draw_seeds,
    interval_of,
    paired_test,
)
from fusion.evaluation.missing import Curves
from fusion.report.layout import Layout
from fusion.report.missing_compared import compare_missing

NO_DIFFERENCE = "~"  # beside a difference whose interval includes 0
Draws = Mapping[tuple[str, str], Floats]  # of a method in a row


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run of N test items left; see :func:`fusion.report.runs.pack_scores`."""

    path: str  # its folder or file, as the user calls it
    name: str | None  # the user's name for its method
    seed: int
    config: Mapping[str, Any]  # without the seed and what changes no result
    result: Mapping[str, Any]  # of the test, with its layout as ``table``
    cost: dict[str, Any]  # see fusion.commands.cost.describe_cost; None is not known
    ids: Sequence[str]  # (N,) names of the items, all different
    clips: NDArray[np.int64]  # (N,) numbers of their clips; items of one clip share it
    test: str  # digest of the items' names and sentences
    scores: Mapping[str, Mapping[str, float]]  # by row, then by name of the query, from 0 to 1
    curves: Mapping[str, Curves] = dataclasses.field(default_factory=dict)  # of missing modalities

    @functools.cached_property
    def layout(self) -> Layout:
        """How its result is to be read."""
        return Layout.of(self.result)

    @property
    def rows(self) -> Mapping[str, Mapping[str, Any]]:
        """The rows of its result, by name."""
        rows: Mapping[str, Mapping[str, Any]] = self.result[self.layout.rows]
        return rows


@dataclasses.dataclass(frozen=True)
class Method:
    """Runs that differ only in their seed, and what tables call them."""

    name: str
    runs: Sequence[Run]

    def rows(self, way: str, part: str = "") -> list[Mapping[str, Any]]:
        """List a row of each run, in this part of its result; none unless every run has it."""
        tables = [run.result.get(part or run.layout.rows, {}) for run in self.runs]
        return [table[way] for table in tables] if all(way in table for table in tables) else []


def compare_methods(methods: Sequence[Method], baseline: str) -> dict[str, Any]:
    """Compare methods of different names, tested on the same clips in the same way, with one.

    Returns:
        Ready for JSON: of each method ``cost``, ``seeds``, ``data`` of the test, and its rows, in
        ``headline``, ``by_cosine`` and under the key of the layout (``directions``): means of the
        metrics over seeds and, where ``R@1`` is the main one, ``R@1_of_seeds``, ``R@1_deviation``
        over seeds, ``R@1_interval`` over clips, and ``difference`` to the baseline, see
        :func:`fusion.evaluation.metrics.paired_test`. The rest says how to read the rows.
    """
    first, layout = methods[0].runs[0].result, _merge_layouts(methods)
    ways = list(layout.names)
    draws = _draw(methods, ways, layout)
    base = next(m for m in methods if m.name == baseline)
    described = {}
    for method in methods:
        rows = {way: _row(method, way, layout, draws) for way in ways if method.rows(way)}
        for way, row in rows.items():
            if method is not base and base.rows(way):
                row["difference"] = _difference(method, base, (way, way), layout, draws)
        cosine = {way: _row(method, way, layout, {}, "by_cosine") for way in ways}
        described[method.name] = {
            "runs": [run.path for run in method.runs],
            "seeds": [run.seed for run in method.runs],
            "similarity": method.runs[0].result.get("similarity"),
            "data": known_values(method.runs, "data"),
            "cost": _mean_cost(method.runs),
            "headline": _headline(method, base, layout, draws),
            "rivals": _rivals(method, layout, draws),
            layout.rows: rows,
            "by_cosine": {way: row for way, row in cosine.items() if row},
        }
    missing = compare_missing(methods, baseline)
    protocols = {run.result["protocol"] for method in methods for run in method.runs}
    kept = ("set", "gallery", "counted", "clips", *layout.guesses.values())
    return {
        # Where files or features differ, the sentence of one run is not true of the others.
        "protocol": protocols.pop() if len(protocols) == 1 else first["protocol_parts"]["rule"],
        **{key: first[key] for key in kept if key in first},
        "ceiling": first.get("ceiling"),
        layout.rows: ways,
        "baseline": baseline,
        "headline": layout.headline_rule,
        "rivals": layout.rivals_rule,
        "test": _say_test(first, layout, baseline),
        "methods": described,
        **({"missing": missing} if missing else {}),
        "table": layout.as_json(),
    }


def list_rows(comparison: Mapping[str, Any]) -> list[str]:
    """List the headline, if any method has it, and the rows."""
    layout = Layout.of(comparison)
    ways, own = comparison[layout.rows], layout.own_way
    has_headline = own not in ways and any(rows_of(comparison, own).values())
    return [*([own] if has_headline else []), *ways]


def rows_of(
    comparison: Mapping[str, Any], way: str, part: str = ""
) -> dict[str, dict[str, Any] | None]:
    """Give each method's row, or its headline; None where it has none."""
    layout, methods = Layout.of(comparison), comparison["methods"].items()
    if way == layout.own_way and way not in comparison[layout.rows]:
        return {name: method["headline"] for name, method in methods}
    return {name: method[part or layout.rows].get(way) for name, method in methods}


def chance_of(comparison: Mapping[str, Any]) -> float | None:
    """Give the chance level of every row in per cent; None if it is not known."""
    guess: float | None = (comparison.get("chance") or {}).get(Layout.of(comparison).main)
    return guess


def ceiling_of(comparison: Mapping[str, Any], way: str) -> float | None:
    """Give the highest value that can be reached in a row, in per cent; None if it is not known."""
    layout, ways = Layout.of(comparison), [way]
    if way == layout.own_way:  # methods that use different rows share a ceiling if it is the same
        ways = [row.get(layout.row, way) for row in rows_of(comparison, way).values() if row]
    found = {(comparison["ceiling"] or {}).get(name, {}).get(layout.main) for name in ways}
    return found.pop() if len(found) == 1 else None


def known_values(runs: Sequence[Run], key: str) -> list[Any]:
    """List the different values of runs in ``cost``, or as ``data``; older runs lack some."""
    facts = [run.cost | {"data": run.result["protocol_parts"]["data"]} for run in runs]
    return list(dict.fromkeys(known[key] for known in facts if known.get(key) is not None))


def write_values(values: Sequence[Any]) -> str:
    """Write values beside one another; a dash if there is none."""
    return ", ".join(f"{v:,}" if isinstance(v, int) else v for v in values) or "-"


def _merge_layouts(methods: Sequence[Method]) -> Layout:
    """Take the layout of the first run, with the rows of all and the facts that are true of all."""
    layouts = [run.layout for method in methods for run in method.runs]
    there = {way for method in methods for run in method.runs for way in run.rows}
    names = {way: words for one in layouts for way, words in one.names.items() if way in there}
    by_item = {way for one in layouts for way in one.asked_by_item}
    by_some = {way for one in layouts for way in one.asked_by_some}
    first = layouts[0]
    facts = {n: t for n, t in first.facts.items() if all(o.facts.get(n) == t for o in layouts)}
    rivals: dict[str, list[str]] = {}
    for way, other in ((w, o) for one in layouts for w, some in one.rivals.items() for o in some):
        if other not in rivals.setdefault(way, []):
            rivals[way].append(other)
    longest = max(layouts, key=lambda one: len(one.headline))  # a run may lack a row of it
    return dataclasses.replace(
        longest,
        names=names,
        facts=facts,
        asked_by_item=sorted(by_item),
        asked_by_some=sorted(by_some),
        rivals=rivals,
    )


def _draw(methods: Sequence[Method], ways: Sequence[str], layout: Layout) -> Draws:
    """Draw clips, the same for all methods, and seeds, for each method apart."""
    run = methods[0].runs[0]
    numbers, owner = np.unique(run.clips, return_inverse=True)
    place = {name: int(clip) for name, clip in zip(run.ids, owner, strict=True)}
    # Clips that count but are in no ranking: a miss of every method.
    missing = max(0, run.result["counted"] - len(numbers))
    size = len(numbers) + missing
    columns = [(m, way, one) for m in methods for way in ways if m.rows(way) for one in m.runs]
    hits, asked = np.zeros((size, len(columns))), np.ones((size, len(columns)))
    for column, (_, way, one) in enumerate(columns):
        clips = [place[query] for query in one.scores[way]]
        hits[:, column] = np.bincount(clips, [*one.scores[way].values()], size)
        if way in layout.asked_by_some:
            asked[:, column] = np.bincount(clips, minlength=size)
        elif way in layout.asked_by_item:
            asked[:, column] = np.bincount(owner, minlength=size)
            # How the captions of missing clips are shared among these is not known.
            queries = one.rows[way]["queries"]
            asked[len(numbers) :, column] = (queries - len(owner)) / max(1, missing)
    recalls, start = draw_recalls(hits, asked), 0
    draws: dict[tuple[str, str], Floats] = {}
    for number, method in enumerate(methods):
        rows, seeds = [way for way in ways if method.rows(way)], len(method.runs)
        mine = recalls[:, start : start + len(rows) * seeds]
        start += mine.shape[1]
        by_seed = mine.reshape(len(mine), len(rows), seeds).swapaxes(1, 2)
        means = draw_seeds(by_seed, SEED + 1 + number)
        draws |= {(method.name, way): means[:, i] for i, way in enumerate(rows)}
    return draws


def _row(method: Method, way: str, layout: Layout, draws: Draws, part: str = "") -> dict[str, Any]:
    """Average a row over seeds; without draws its interval is that of a single run."""
    rows, main = method.rows(way, part), layout.main
    if not rows:
        return {}
    values = [row[main] for row in rows]
    shown = [name for name in (main, *layout.columns) if all(name in row for row in rows)]
    interval = rows[0].get(layout.interval) if len(rows) == 1 else None
    return {
        **{name: statistics.fmean(row[name] for row in rows) for name in shown},
        f"{main}_of_seeds": values,
        f"{main}_deviation": statistics.stdev(values) if len(values) > 1 else None,
        layout.interval: interval_of(draws[method.name, way]) if draws else interval,
        **{key: rows[0][key] for key in layout.counts if key in rows[0]},
    }


def _difference(
    method: Method, base: Method, ways: tuple[str, str], layout: Layout, draws: Draws
) -> dict[str, Any]:
    pairs = list(zip((method, base), ways, strict=True))
    ours, theirs = (statistics.fmean(r[layout.main] for r in m.rows(way)) for m, way in pairs)
    return {layout.main: ours - theirs, **paired_test(*(draws[m.name, way] for m, way in pairs))}


def _rivals(method: Method, layout: Layout, draws: Draws) -> list[dict[str, Any]]:
    """Test rows of a method against others of its own, over the same clips and seeds."""
    return [
        {
            layout.row: way,
            "against": other,
            layout.main: statistics.fmean(row[layout.main] for row in method.rows(way)),
            f"{layout.main}_against": statistics.fmean(r[layout.main] for r in method.rows(other)),
            "difference": _difference(method, method, (way, other), layout, draws),
        }
        for way, others in layout.rivals.items()
        for other in others
        if method.rows(way) and method.rows(other)
    ]


def _headline(method: Method, base: Method, layout: Layout, draws: Draws) -> dict[str, Any] | None:
    """Give the row that stands for a method, and its difference to that of the baseline."""
    way, other = (next((w for w in layout.headline if m.rows(w)), None) for m in (method, base))
    if way is None:
        return None
    row = _row(method, way, layout, draws) | {layout.row: way}
    if method is not base and other is not None:
        row["difference"] = _difference(method, base, (way, other), layout, draws)
    return row


def _mean_cost(runs: Sequence[Run]) -> dict[str, Any]:
    """Average the cost over runs; None is what none of them knows."""

    def known(key: str) -> list[Any]:
        return [run.cost[key] for run in runs if run.cost[key] is not None]

    several = ("training_clips", "processes", "threads")
    means = {
        key: statistics.fmean(values) if (values := known(key)) else None
        for key in ("gflop_per_clip", "training_seconds")
    }
    return {
        "parameters": runs[0].cost["parameters"],
        **means,
        "peak_memory_bytes": max(known("peak_memory_bytes"), default=None),
        "device": ", ".join(known_values(runs, "device")),
        **{key: sorted(known_values(runs, key)) for key in several},
    }


def _say_test(result: Mapping[str, Any], layout: Layout, baseline: str) -> str:
    whole = ", each with all its queries" if layout.asked_by_item or layout.asked_by_some else ""
    return (
        f"A difference is {layout.main} minus that of {baseline}, over the same queries.\n"
        f"Intervals and p come from a bootstrap over clips, the same for all methods:"
        f" {DRAWS:,} times, {result['counted']:,} clips with replacement{whole}.\n"
        "Each time, n - 1 of a method's n seeds are drawn with replacement as well, so an interval"
        " covers the choice of clips and the choice of seeds; of one seed, that of clips alone.\n"
        f"A query that a {layout.row} of one run lacks is a miss.\n"
        "p is two-sided and not corrected for the number of comparisons.\n"
        "The interval in the report of a run has its own draws and may differ a little."
    )
