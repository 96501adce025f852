"""Compare runs, or indexes: a table for the terminal, a page with a picture, and JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fusion.checkpoint import WEIGHTS
from fusion.commands.evaluate import evaluate
from fusion.config import ConfigError
from fusion.files import write_atomically
from fusion.report import comparable
from fusion.report.comparison import Run, compare_methods
from fusion.report.plots import comparison_picture
from fusion.report.runs import read_run
from fusion.report.tables import comparison_page, format_comparison
from fusion.search.recall_runs import UNFAIR, is_index, read_indexes
from fusion.tasks import complete_result


def compare(
    runs: Sequence[str],
    out: str | Path = "comparison",
    json_path: str | Path | None = None,
    baseline: str | None = None,
    trust: bool = False,
    captions: str | None = None,
) -> dict[str, Any]:
    """Compare runs, print the table, and write page, picture and JSON.

    Args:
        runs: ``PLACE`` or ``NAME=PLACE``. A place is the folder of a run, a file of
            ``fusion evaluate --json``, or a checkpoint, which is evaluated on the test of its own
            data. Runs whose configs differ only in the seed, and in what does not change a result,
            are one method. Or all are indexes of the same films; then one is enough.
        out: folder for ``comparison.html``, ``comparison.svg`` and ``comparison.json``.
        json_path: file to write the JSON to as well.
        baseline: folder of a run, or name of a method, that the other methods are tested against;
            the first if not given.
        trust: whether to import what the config of a checkpoint names by import path.
        captions: questions for indexes that were cut into windows, see
            :func:`fusion.search.recall_runs.read_indexes`.

    Returns:
        What :func:`fusion.report.comparison.compare_methods` gives, and ``warnings``.

    Raises:
        ValueError: there are fewer than two runs, a run is incomplete, or runs were not tested on
            the same clips in the same way.
    """
    if Path(out).exists() and not Path(out).is_dir():
        raise ConfigError(f"--out {out} is a file; name a folder")
    read = _read_all(runs, captions, trust)
    comparable.check_comparable(read)
    methods = comparable.group_runs(read)
    comparison = compare_methods(methods, comparable.choose_baseline(methods, baseline))
    of_indexes = {"unfair": UNFAIR} if is_index(read[0].path) else {}
    comparison["warnings"] = comparable.find_warnings(methods, **of_indexes)
    picture = comparison_picture(comparison)
    numbers = json.dumps(comparison, indent=1)
    files = {
        "page": ("comparison.html", comparison_page(comparison, picture)),
        "picture": ("comparison.svg", picture),
        "numbers": ("comparison.json", numbers),
    }
    print(format_comparison(comparison), end="\n\n")
    for warning in comparison["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    for what, (name, text) in files.items():
        write_atomically(Path(out) / name, text)
        print(f"{what:<10}{Path(out) / name}")
    if json_path:
        write_atomically(json_path, numbers)
    return comparison


def _read_all(runs: Sequence[str], captions: str | None, trust: bool) -> list[Run]:
    """Read runs, or indexes; ConfigError: they are of both kinds."""
    named = [split_name(run) for run in runs]
    indexes = [path for _, path in named if is_index(path)]
    others = [path for _, path in named if path not in indexes]
    if indexes and others:
        raise ConfigError(
            f"{indexes[0]} is an index of films and {others[0]} is none; compare indexes with"
            " indexes, made by: fusion index FILMS --model MODEL --out INDEX"
        )
    if captions and others:
        raise ConfigError(f"--captions is for indexes, and {others[0]} is none; leave it out")
    _check_places(named, 1 if indexes else 2)
    if indexes:
        return read_indexes(named, captions, trust)
    return [_read(path, name, trust) for name, path in named]


def _check_places(named: Sequence[tuple[str | None, str]], least: int) -> None:
    """Raise a ConfigError if there are too few places, or one is given twice."""
    if len(named) < least:
        raise ConfigError(
            f"{len(named) or 'no'} run is given, and a comparison needs two or more: add the folder"
            " of another run, a checkpoint, or a file that fusion evaluate --json FILE wrote"
        )
    paths = [os.path.realpath(path) for _, path in named]
    for (_, path), real in zip(named, paths, strict=True):
        if paths.count(real) > 1:
            raise ConfigError(f"{path} is given twice; leave one out")


def _read(path: str, name: str | None, trust: bool) -> Run:
    """Read a run or an evaluation; evaluate a checkpoint first."""
    if not (Path(path) / WEIGHTS).exists():
        return read_run(path, name, complete_result)
    print(f"{path} is a checkpoint: evaluated on the test of its data", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "evaluation.json"
        evaluate(path, None, file, quiet=True, trust=trust)
        return dataclasses.replace(read_run(str(file), name, complete_result), path=path)


def split_name(word: str) -> tuple[str | None, str]:
    """Split ``NAME=PLACE`` at the first = after which there is a file; both may contain a =."""
    for place, letter in enumerate(word):
        if letter == "=" and place and not Path(word).exists() and Path(word[place + 1 :]).exists():
            return word[:place], word[place + 1 :]
    return None, word
