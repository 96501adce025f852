"""Which runs can be compared, and which of them are one method."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fusion.config import ConfigError
from fusion.report.comparison import Method, Run, known_values
from fusion.report.comparison_table import write_values

ADVICE = "test both on the same clips: train or evaluate them with one data section of the config"


class Given(NamedTuple):
    """A run as the user gives it: its name, if it has one, and its config without the seed."""

    name: str | None
    run: Run
    config: Mapping[str, Any]


def check_comparable(runs: Sequence[Run]) -> None:
    """Check that runs were tested on the same clips and sentences in the same way.

    Files and features of the test may differ, see :func:`find_warnings`.

    Raises:
        ConfigError: they were not; the message names the runs and what differs.
    """
    has: dict[str, Run] = {}  # each row, and the first run that has it
    for run in runs:
        _check_test(runs[0], run)
        for way, row in run.result[run.layout.rows].items():
            other = has.setdefault(way, run)
            for key in run.layout.counts:
                before = other.result[run.layout.rows][way][key]
                if before != row[key]:
                    raise ConfigError(
                        f"{other.path} and {run.path} cannot be compared: the {key} of {way}"
                        f" differs, {before:,} against {row[key]:,}; {ADVICE}"
                    )


def _check_test(first: Run, other: Run) -> None:
    pair = f"{first.path} and {other.path} cannot be compared"
    for name, value in _counting_of(first).items():
        if value != _counting_of(other)[name]:
            raise ConfigError(
                f"{pair}: their {name} differs, {value!r} against {_counting_of(other)[name]!r};"
                f" {ADVICE}"
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


def _counting_of(run: Run) -> dict[str, Any]:
    """List what must be the same in all results that are compared, by name."""
    return {
        "protocol": run.result["protocol_parts"]["rule"],
        "split": run.result["set"],
        "number of clips counted": run.result["counted"],
        "number of clips in the gallery": run.result.get("gallery"),
        "measure": f"{run.layout.main} of each {run.layout.row}",
    }


def group_runs(given: Sequence[Given]) -> list[Method]:
    """Group runs that differ only in their seed into methods, and name each method.

    Raises:
        ConfigError: a seed occurs twice in a method, or two names contradict each other.
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
        Method(n if c or names.count(n) == 1 else g[0].run.path, [one.run for one in g])
        for n, c, g in zip(names, chosen, groups, strict=True)
    ]


def choose_baseline(methods: Sequence[Method], wanted: str | None) -> str:
    """Find a method by its name or by one of its folders; the first if none is asked for.

    Raises:
        ConfigError: there is no such method.
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
    """List differences that make a comparison unfair although it is possible."""
    facts = {
        "data": (
            "files or features of the test differ",
            "a method may be better because its features are",
        ),
        "training_clips": (
            "numbers of training clips seen differ",
            "a method may be better because it saw more",
        ),
        "device": ("devices differ", "times and memory are not comparable"),
        "processes": ("numbers of processes differ", "training times are not comparable"),
        "threads": ("numbers of threads differ", "training times are not comparable"),
    }
    warnings = []
    for key, (what, so) in facts.items():
        values = {m.name: known_values(m.runs, key) for m in methods}
        if len({value for several in values.values() for value in several}) > 1:
            each = "; ".join(f"{n}: {write_values(several)}" for n, several in values.items())
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
    """Name a method by the common start of its folders' names: eao-seed0, eao-seed1 -> eao."""
    paths = [os.path.realpath(one.run.path) for one in group]
    names = [Path(path).name for path in paths]
    alike = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    shared = "".join(letters[0] for letters in alike)
    if shared not in names:
        shared = shared.rstrip("0123456789-_. ").removesuffix("seed").rstrip("-_. ")
    if shared:
        return shared
    if all(re.fullmatch(r"(seed)?[\W_]*\d*", name) for name in names):  # eao/seed0, eao/seed1
        return Path(os.path.commonpath(paths)).name or names[0]
    return ", ".join(names)


def _config_difference(first: Given, second: Given) -> str:
    keys = sorted(
        key
        for key in first.config.keys() | second.config.keys()
        if first.config.get(key) != second.config.get(key)
    )
    one, other = first.config.get(keys[0]), second.config.get(keys[0])
    return f"such as {keys[0]}: {one!r} against {other!r}"
