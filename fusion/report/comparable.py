"""Which runs can be compared, and which of them are one method."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fusion.checkpoint import WEIGHTS
from fusion.config import ConfigError
from fusion.report.comparison import Method, Run, known_values, write_values

ADVICE = (
    "evaluate both on one test and compare the files: fusion evaluate RUN --set CONFIG --json FILE"
)
UNFAIR = {  # facts of a run: what it means if they differ
    "data": "files or features of the test differ, so one method may only have better features",
    "training_clips": "numbers of training clips seen differ, so one method had more training",
    "device": "devices differ, so times and memory are not comparable",
    "processes": "numbers of processes differ, so training times are not comparable",
    "threads": "numbers of threads differ, so training times are not comparable",
}


def check_comparable(runs: Sequence[Run]) -> None:
    """Check that runs were tested on the same clips and sentences in the same way.

    Files and features of the test may differ, see :func:`find_warnings`.

    Raises:
        ConfigError: they were not; the message names the runs and what differs.
    """
    has: dict[str, Run] = {}  # each row, and the first run that has it
    for run in runs:
        _check_test(runs[0], run)
        for way, row in run.rows.items():
            other = has.setdefault(way, run)
            for key in run.layout.counts:
                if other.rows[way][key] != row[key]:
                    raise ConfigError(
                        f"{other.path} and {run.path} cannot be compared: the {key} of {way}"
                        f" differs, {other.rows[way][key]:,} against {row[key]:,}; {ADVICE}"
                    )


def _check_test(first: Run, other: Run) -> None:
    pair = f"{first.path} and {other.path} cannot be compared"
    rules = _rules_of(other)
    for name, value in _rules_of(first).items():
        if value != rules[name]:
            raise ConfigError(
                f"{pair}: their {name} differs, {value!r} against {rules[name]!r}; {ADVICE}"
            )
    ours, theirs = set(first.ids), set(other.ids)
    if ours != theirs:
        sides = [(first, sorted(ours - theirs)), (other, sorted(theirs - ours))]
        alone = "; ".join(
            f"only {run.path} has {len(names):,}, such as {names[0]!r}"
            for run, names in sides
            if names
        )
        raise ConfigError(f"{pair}: their test clips differ, {alone}; {ADVICE}")
    if _captions_by_clip(first) != _captions_by_clip(other):
        raise ConfigError(f"{pair}: their captions belong to other clips; {ADVICE}")
    if first.test != other.test:
        raise ConfigError(
            f"{pair}: their test clips have the same names but other sentences, or those of a clip"
            f" in another order; {ADVICE}"
        )


def _rules_of(run: Run) -> dict[str, Any]:
    return {
        "protocol": run.result["protocol_parts"]["rule"],
        "split": run.result["set"],
        "number of clips counted": run.result["counted"],
        "number of clips in the gallery": run.result.get("gallery"),
        "measure": f"{run.layout.main} of each {run.layout.row}",
    }


def _captions_by_clip(run: Run) -> set[frozenset[str]]:
    clips: dict[int, set[str]] = {}
    for name, clip in zip(run.ids, run.clips.tolist(), strict=True):
        clips.setdefault(clip, set()).add(name)
    return {frozenset(names) for names in clips.values()}


def group_runs(runs: Sequence[Run]) -> list[Method]:
    """Group runs that differ only in their seed into methods, and name each method.

    Raises:
        ConfigError: a seed occurs twice in a method, or two names contradict each other.
    """
    groups: list[list[Run]] = []
    for run in runs:
        group = next((g for g in groups if g[0].config == run.config), [])
        if not group:
            groups.append(group)
        for other in group:
            if other.seed == run.seed:
                raise ConfigError(
                    f"{other.path} and {run.path} have the same config and the same seed"
                    f" ({run.seed}), so they are one run made twice; leave one out"
                )
        group.append(run)
    given = [_given_name(group) for group in groups]
    pairs = zip(given, groups, strict=True)
    for (name, ours), (another, theirs) in itertools.combinations(pairs, 2):
        if name is not None and name == another:
            first, second = ours[0].config, theirs[0].config
            keys = first.keys() | second.keys()
            key = min(key for key in keys if first.get(key) != second.get(key))
            raise ConfigError(
                f"{ours[0].path} and {theirs[0].path} cannot both be called {name!r}: their configs"
                f" differ in more than the seed, such as {key}: {first.get(key)!r} against"
                f" {second.get(key)!r}"
            )
    names = [name or _name_of_folders(group) for name, group in zip(given, groups, strict=True)]
    return [
        Method(name if own or names.count(name) == 1 else group[0].path, group)
        for name, own, group in zip(names, given, groups, strict=True)
    ]


def _given_name(group: Sequence[Run]) -> str | None:
    names = {run.name: run.path for run in group if run.name}
    if len(names) > 1:
        (one, first), (other, second) = list(names.items())[:2]
        raise ConfigError(
            f"{first} and {second} differ in their seed alone, so they are one method; call both"
            f" {one!r} or both {other!r}"
        )
    return next(iter(names), None)


def _name_of_folders(group: Sequence[Run]) -> str:
    """Name a method by the common start of its folders' names: eao-seed0, eao-seed1 -> eao."""
    paths = [os.path.realpath(run.path) for run in group]
    names = [_short_name(path) for path in paths]
    alike = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    shared = "".join(letters[0] for letters in alike)
    if shared not in names:
        shared = shared.rstrip("0123456789-_. ").removesuffix("seed").rstrip("-_. ")
    if not shared and all(re.fullmatch(r"(seed)?[\W_]*\d*", name) for name in names):
        shared = Path(os.path.commonpath(paths)).name or names[0]  # eao/seed0, eao/seed1
    return shared or ", ".join(names)


def _short_name(path: str) -> str:
    """Name a run by its folder, a file without its ending, a checkpoint of a run as eao/last."""
    place = Path(path)
    if place.is_file():
        return place.stem
    is_in_run = (place / WEIGHTS).exists() and (place.parent / "config.yaml").exists()
    return f"{place.parent.name}/{place.name}" if is_in_run else place.name


def choose_baseline(methods: Sequence[Method], wanted: str | None) -> str:
    """Find a method by its name or by one of its folders; the first method if ``wanted`` is None.

    Raises:
        ConfigError: there is no such method.
    """
    for method in methods:
        folders = [os.path.realpath(run.path) for run in method.runs]
        if wanted in (None, method.name) or os.path.realpath(str(wanted)) in folders:
            return method.name
    names = ", ".join(method.name for method in methods)
    raise ConfigError(f"--baseline: {wanted!r} is none of the runs; choose from {names}")


def find_warnings(methods: Sequence[Method], unfair: Mapping[str, str] = UNFAIR) -> list[str]:
    """List differences that make a comparison unfair although it is possible."""
    warnings = []
    for key, text in unfair.items():
        values = {method.name: known_values(method.runs, key) for method in methods}
        if len({value for several in values.values() for value in several}) > 1:
            each = "; ".join(f"{name}: {write_values(v)}" for name, v in values.items())
            warnings.append(f"{text} ({each})")
    return warnings
