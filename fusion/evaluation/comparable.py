"""Which runs may stand beside one another, and which of them are one method."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fusion.config import ConfigError
from fusion.evaluation.comparison import Method, Run

# What a table must have in common with another for their rows to be comparable.
SAME = {
    "protocol": "protocol",
    "set": "split",
    "counted": "number of clips counted",
    "gallery": "number of clips in the gallery",
}
ADVICE = "test both on the same clips: train or evaluate them with one data section of the config"


class Given(NamedTuple):
    """A run as it is given: the name, if there is one, and its config but for the seed."""

    name: str | None
    run: Run
    config: Mapping[str, Any]


def check_comparable(first: Run, other: Run) -> None:
    """Check that two runs were tested on the same clips in the same way.

    Raises:
        ConfigError: they were not; it says which runs differ in what.
    """
    pair = f"{first.path} and {other.path} cannot be compared"
    for key, words in SAME.items():
        if first.result[key] != other.result[key]:
            raise ConfigError(
                f"{pair}: their {words} differs, {first.result[key]!r} against"
                f" {other.result[key]!r}; {ADVICE}"
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
    for way, row in first.result["directions"].items():
        for key in ("queries", "gallery"):
            beside = other.result["directions"].get(way, row)
            if row[key] != beside[key]:
                raise ConfigError(
                    f"{pair}: the {key} of {way} differs, {row[key]:,} against"
                    f" {beside[key]:,}; {ADVICE}"
                )


def group_runs(given: Sequence[Given]) -> list[Method]:
    """Put runs together that differ in their seed alone, and name each method.

    Raises:
        ConfigError: a seed is there twice, or names contradict one another.
    """
    groups: list[list[Given]] = []
    for one in given:
        group = next((g for g in groups if g[0].config == one.config), None)
        if group is None:
            groups.append([one])
            continue
        for other in group:
            if other.run.seed == one.run.seed:
                raise ConfigError(
                    f"{other.run.path} and {one.run.path} have the same config and the same seed"
                    f" ({one.run.seed}), so they are one run made twice; leave one out"
                )
        group.append(one)
    chosen = [_chosen_name(group) for group in groups]
    for number, name in enumerate(chosen):
        if name in chosen[:number]:
            first, second = groups[chosen.index(name)][0], groups[number][0]
            if name is not None:
                raise ConfigError(
                    f"{first.run.path} and {second.run.path} cannot both be called {name!r}: their"
                    f" configs differ in more than the seed, {_config_difference(first, second)}"
                )
    names = [name or _name_of_folders(g) for name, g in zip(chosen, groups, strict=True)]
    return [
        Method(name if names.count(name) == 1 else g[0].run.path, [one.run for one in g])
        for name, g in zip(names, groups, strict=True)
    ]


def choose_baseline(methods: Sequence[Method], wanted: str | None) -> str:
    """Find the method that a user calls by its name or by one of its folders; else the first.

    Raises:
        ConfigError: there is none.
    """
    if wanted is None:
        return methods[0].name
    for method in methods:
        folders = [os.path.realpath(run.path) for run in method.runs]
        if method.name == wanted or os.path.realpath(wanted) in folders:
            return method.name
    names = ", ".join(method.name for method in methods)
    raise ConfigError(f"--baseline: {wanted!r} is none of the runs; choose from {names}")


def find_warnings(methods: Sequence[Method]) -> list[str]:
    """Say what makes a comparison unfair although its tables are comparable."""
    facts = {
        "training_clips": (
            "numbers of training clips seen differ",
            "a method may be better because it saw more",
        ),
        "device": ("devices differ", "times and memory are not comparable"),
    }
    warnings = []
    for key, (what, so) in facts.items():
        values = {m.name: list(dict.fromkeys(run.cost[key] for run in m.runs)) for m in methods}
        if len({value for several in values.values() for value in several}) > 1:
            each = "; ".join(
                f"{name}: {', '.join(f'{v:,}' if isinstance(v, int) else v for v in several)}"
                for name, several in values.items()
            )
            warnings.append(f"{what}, so {so} ({each})")
    return warnings


def _captions_by_clip(run: Run) -> set[frozenset[str]]:
    clips: dict[int, set[str]] = {}
    for name, clip in zip(run.ids, run.clips.tolist(), strict=True):
        clips.setdefault(clip, set()).add(name)
    return {frozenset(names) for names in clips.values()}


def _chosen_name(group: Sequence[Given]) -> str | None:
    names = {one.name: one.run.path for one in group if one.name}
    if len(names) > 1:
        (one, first), (other, second) = list(names.items())[:2]
        raise ConfigError(
            f"{first} and {second} differ in their seed alone, so they are one method; call both"
            f" {one!r} or both {other!r}"
        )
    return next(iter(names), None)


def _name_of_folders(group: Sequence[Given]) -> str:
    """Name a method by what its folders' names begin with: eao-seed0, eao-seed1 -> eao."""
    paths = [os.path.realpath(one.run.path) for one in group]
    names = [Path(path).name for path in paths]
    alike = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    shared = "".join(letters[0] for letters in alike)
    if shared not in names:
        shared = shared.rstrip("0123456789-_. ").removesuffix("seed").rstrip("-_. ")
    return shared or Path(os.path.commonpath(paths)).name or names[0]


def _config_difference(first: Given, second: Given) -> str:
    keys = sorted(
        key
        for key in first.config.keys() | second.config.keys()
        if first.config.get(key) != second.config.get(key)
    )
    one, other = first.config.get(keys[0]), second.config.get(keys[0])
    return f"such as {keys[0]}: {one!r} against {other!r}"
