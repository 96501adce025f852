"""Runs beside one another: one table, one page with one picture, and the same as JSON."""

from __future__ import annotations

import json
import os
import sys
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion.config import ConfigError, flatten, load_config
from fusion.evaluation.bars import comparison_picture
from fusion.evaluation.comparable import (
    SAME,
    Given,
    check_comparable,
    choose_baseline,
    find_warnings,
    group_runs,
)
from fusion.evaluation.comparison import Run, compare_methods
from fusion.evaluation.comparison_page import comparison_page
from fusion.evaluation.comparison_table import format_comparison
from fusion.files import write_atomically
from fusion.training.folder import FREE_TO_CHANGE

NEEDED = {
    "results.json": ("clips", "directions", "similarity", *SAME),
    "cost.json": (
        *("parameters", "gflop_per_clip", "training_seconds"),
        *("peak_memory_bytes", "training_clips", "device"),
    ),
}


def compare(
    runs: Sequence[str],
    out: str | Path = "comparison",
    json_path: str | Path | None = None,
    baseline: str | None = None,
) -> dict[str, Any]:
    """Compare runs, print the table, and write page, picture and JSON.

    Args:
        runs: folders of runs, ``FOLDER`` or ``NAME=FOLDER``. Those whose configs differ in nothing
            but the seed (and in what does not change a result) are one method.
        out: folder for ``comparison.html``, ``comparison.svg`` and ``comparison.json``.
        json_path: file to write the JSON to as well.
        baseline: one of the runs, or the name of a method, that others are tested against; the
            first if not given.

    Returns:
        What :func:`fusion.evaluation.comparison.compare_methods` gives, and ``warnings``.

    Raises:
        ConfigError: there are fewer than two runs, one is incomplete, or they were not tested on
            the same clips in the same way.
    """
    named = [split_name(run) for run in runs]
    if len(named) < 2:
        raise ConfigError(
            f"{len(named) or 'no'} run is given, and a comparison needs two or more: python"
            " tools/compare.py RUN RUN, folders that tools/train.py wrote, such as"
            " runs/eao runs/mcn"
        )
    twice = Counter(os.path.realpath(path) for _, path in named)
    for _, path in named:
        if twice[os.path.realpath(path)] > 1:
            raise ConfigError(f"{path} is given twice; leave one out")
    read = [read_run(path) for _, path in named]
    for run, _ in read[1:]:
        check_comparable(read[0][0], run)
    methods = group_runs([Given(n, *one) for (n, _), one in zip(named, read, strict=True)])
    chosen = choose_baseline(methods, baseline)
    comparison = compare_methods(methods, chosen) | {"warnings": find_warnings(methods)}
    files = {
        "comparison.html": comparison_page(comparison),
        "comparison.svg": comparison_picture(comparison),
        "comparison.json": json.dumps(comparison, indent=1),
    }
    print(format_comparison(comparison))
    for warning in comparison["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    for name, text in files.items():
        write_atomically(Path(out) / name, text)
    if json_path:
        write_atomically(json_path, files["comparison.json"])
    print(f"\npage      {Path(out) / 'comparison.html'}")
    print(f"picture   {Path(out) / 'comparison.svg'}")
    return comparison


def split_name(word: str) -> tuple[str | None, str]:
    """Split ``NAME=FOLDER`` where there is such a folder: both may have a = in them."""
    for place, letter in enumerate(word):
        if letter == "=" and place and not Path(word).exists() and Path(word[place + 1 :]).is_dir():
            return word[:place], word[place + 1 :]
    return None, word


def read_run(path: str) -> tuple[Run, dict[str, Any]]:
    """Read what a run left, and its config without what may differ between seeds.

    Raises:
        ConfigError: a file is missing, from an older version, or cannot be read.
    """
    folder = Path(path)
    if not (folder / "config.yaml").exists():
        raise ConfigError(
            f"{path} is no folder of a run: it has no config.yaml; give the output=FOLDER of"
            " tools/train.py"
        )
    result, cost = (_read_json(folder, name) for name in ("results.json", "cost.json"))
    ids, clips, found = _read_ranks(folder, result)
    config = flatten(load_config(folder / "config.yaml"))
    seed = config.pop("seed")
    for key in FREE_TO_CHANGE:
        config.pop(key, None)
    return Run(path, seed, result, cost, ids, clips, found), config


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    """Read a file of a run and check that this version wrote it."""
    try:
        values = json.loads((folder / name).read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{folder} has no {name}; {_how_to_get(folder)}") from None
    except (ValueError, OSError) as error:
        raise ConfigError(f"{folder / name} cannot be read: {error}") from None
    for key in NEEDED[name]:
        if not isinstance(values, dict) or key not in values:
            raise ConfigError(f"{folder / name} lacks {key!r}; {_how_to_get(folder)}")
    if name == "results.json" and not all("queries" in r for r in values["directions"].values()):
        raise ConfigError(f"{folder / name} lacks numbers of queries; {_how_to_get(folder)}")
    return values


def _read_ranks(
    folder: Path, result: Mapping[str, Any]
) -> tuple[list[str], NDArray[np.int64], dict[str, list[str]]]:
    """Read the names of items, the numbers of their clips, and who found theirs first."""
    file = folder / "ranks.npz"
    try:
        with np.load(file) as opened:
            arrays = {name: opened[name] for name in opened.files}
    except FileNotFoundError:
        raise ConfigError(f"{folder} has no ranks.npz; {_how_to_get(folder)}") from None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from None
    ids = arrays.get("ids", np.zeros(0, str)).tolist()
    if "clips" not in arrays and ("captions" in result["clips"] or not ids):
        raise ConfigError(f"{file} does not say which captions share a clip; {_how_to_get(folder)}")
    if len(set(ids)) < len(ids):
        raise ConfigError(f"{file} has the same name for several clips; give each its own name")
    found = {}
    for way, row in result["directions"].items():
        none = np.zeros(0)
        ranks, names = (arrays.get(f"{way} {key}", none) for key in ("ranks", "queries"))
        found[way] = names[ranks == 1].tolist() if len(ranks) == len(names) else []
        if abs(100 * len(found[way]) / row["queries"] - row["R@1"]) > 1e-6:
            raise ConfigError(
                f"{file} and results.json disagree about {way}, so they are of two runs;"
                f" {_how_to_get(folder)}"
            )
    return ids, arrays.get("clips", np.arange(len(ids))), found


def _how_to_get(folder: Path) -> str:
    config = folder / "config.yaml"
    return (
        "the run is not finished or an older version made it: train again (python tools/train.py"
        f" {config} overwrite=true), or let the trained model be evaluated anew (resume=true"
        " instead; the training time then stays unknown and memory is that of the evaluation)"
    )
