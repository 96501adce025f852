"""Runs beside one another: one table, one page with one picture, and the same as JSON."""

from __future__ import annotations

import json
import math
import os
import reprlib
import shlex
import sys
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion.checkpoint import WEIGHTS
from fusion.config import ConfigError, flatten, load_config
from fusion.evaluation.metrics import retrieval_metrics
from fusion.files import write_atomically
from fusion.report.bars import comparison_picture
from fusion.report.comparable import (
    Given,
    check_comparable,
    choose_baseline,
    find_warnings,
    group_runs,
)
from fusion.report.comparison import METRICS, Run, compare_methods
from fusion.report.comparison_page import comparison_page
from fusion.report.comparison_table import format_comparison
from fusion.training.run_folder import FREE_TO_CHANGE

# Of a run's config, what changes no number that is compared.
NO_MATTER = (
    *FREE_TO_CHANGE,
    *("data_root", "trainer.log_every", "trainer.save_every", "evaluation.queries_in_report"),
)


class Each(NamedTuple):
    """A dict whose values are all of this kind, see ``KINDS``."""

    kind: Any


# What is read of each file, and of which type it is; within a dict, what is read of that.
NUMBER = (int, float)
ROWS = Each({"queries": int, "gallery": int, **dict.fromkeys(METRICS, NUMBER)})
KINDS: dict[str, dict[str, Any]] = {
    "results.json": {
        "set": str,
        "protocol": str,
        "protocol_parts": {"rule": str, "data": str},
        "gallery": int,
        "counted": int,
        "clips": {"missing": {}, "rule": str, "captions": int},
        "similarity": str,
        "directions": ROWS,
        "by_cosine": ROWS,
        "chance": {"R@1": NUMBER},
        "ceiling": Each({"R@1": NUMBER}),
    },
    "cost.json": {
        "parameters": int,
        "gflop_per_clip": NUMBER,
        "training_seconds": (*NUMBER, type(None)),
        "peak_memory_bytes": int,
        "training_clips": int,
        "device": str,
        "processes": int,
        "threads": int,
    },
}
MAY_LACK = ("captions", "by_cosine", "ceiling", "processes", "threads")
RANKS = {"ids": "names of clips", "clips": "numbers of clips", "test": "digest of its test"}


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
        What :func:`fusion.report.comparison.compare_methods` gives, and ``warnings``.

    Raises:
        ConfigError: there are fewer than two runs, one is incomplete, or they were not tested on
            the same clips in the same way.
    """
    named = [split_name(run) for run in runs]
    if Path(out).exists() and not Path(out).is_dir():
        raise ConfigError(f"--out {out} is a file; name a folder")
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
    check_comparable([run for run, _ in read])
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
    print(f"numbers   {Path(out) / 'comparison.json'}")
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
    if (folder / WEIGHTS).exists():
        raise ConfigError(
            f"{path} is a checkpoint, and to be compared are runs; give the folder of its run, such"
            f" as {folder.resolve().parent}"
        )
    if not (folder / "config.yaml").exists():
        raise ConfigError(
            f"{path} is no folder of a run: it has no config.yaml; give the output=FOLDER of"
            " tools/train.py"
        )
    result, cost = (_read_json(folder, name) for name in KINDS)
    ids, clips, test, found = _read_ranks(folder, result)
    config = flatten(load_config(folder / "config.yaml"))
    seed, root = config.pop("seed"), config["data_root"]
    config = {k: _below_root(v, root) for k, v in config.items() if k not in NO_MATTER}
    return Run(path, seed, result, cost, ids, clips, test, found), config


def _below_root(value: Any, root: str | None) -> Any:
    """Write a path below ``data_root`` without it: the same data may lie anywhere."""
    if isinstance(value, list):
        return [_below_root(one, root) for one in value]
    stem = (root or "").rstrip("/")
    if root and isinstance(value, str) and f"{value}/".startswith(f"{stem}/"):
        return f"data_root/{value[len(stem) :].lstrip('/')}"
    return value


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    """Read a file of a run and check that this version wrote it."""
    try:
        values = json.loads((folder / name).read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{folder} has no {name}; {_how_to_get(folder, name)}") from None
    except (ValueError, OSError) as error:
        raise ConfigError(
            f"{folder / name} cannot be read: {error}; {_how_to_get(folder, name)}"
        ) from None
    _check(values, KINDS[name], folder, name)
    return values


def _check(value: Any, kind: Any, folder: Path, name: str, where: str = "") -> None:
    """Check that a value of a file has its type; of a dict that what is read of it is there."""
    file, way_out = folder / name, _how_to_get(folder, name)
    if not isinstance(value, dict if isinstance(kind, (dict, Each)) else kind):
        shown = f"{where or 'its content'} cannot be {reprlib.repr(value)}"
        raise ConfigError(f"{file} cannot be read: {shown}; {way_out}")
    if isinstance(kind, Each):
        kind = dict.fromkeys(value, kind.kind)
    for key, inner in kind.items() if isinstance(kind, dict) else ():
        place = f"{where}: {key}" if where else key
        if key in MAY_LACK and value.get(key) is None:
            continue
        if key not in value:
            raise ConfigError(f"{file} lacks {place!r}; {way_out}")
        _check(value[key], inner, folder, name, place)


def _read_ranks(
    folder: Path, result: Mapping[str, Any]
) -> tuple[list[str], NDArray[np.int64], str, dict[str, list[str]]]:
    """Read names of items, numbers of their clips, the digest, and who found theirs first."""
    file, way_out = folder / "ranks.npz", _how_to_get(folder, "ranks.npz")
    try:
        with np.load(file) as opened:
            arrays = {name: opened[name] for name in opened.files}
    except FileNotFoundError:
        raise ConfigError(f"{folder} has no ranks.npz; {way_out}") from None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{file} cannot be read: {error}; {way_out}") from None
    for name, what in RANKS.items():
        if name not in arrays:
            raise ConfigError(f"{file} has no {what}; {way_out}")
    ids, clips = arrays["ids"].tolist(), arrays["clips"]
    if arrays["ids"].ndim != 1 or clips.shape != arrays["ids"].shape or clips.dtype.kind != "i":
        raise ConfigError(f"{file} cannot be read: its names and numbers do not fit; {way_out}")
    if len(set(ids)) < len(ids):
        raise ConfigError(f"{file} has the same name for several clips; give each its own name")
    found = {}
    for way, row in result["directions"].items():
        none = np.zeros(0)
        ranks, names = (arrays.get(f"{way} {key}", none) for key in ("ranks", "queries"))
        if not _fits(ranks, names, ids, row):
            raise ConfigError(
                f"{file} and results.json disagree about {way}, so they are of two runs; {way_out}"
            )
        found[way] = names[ranks == 1].tolist()
    return ids, clips, str(arrays["test"]), found


def _fits(
    ranks: NDArray[Any], names: NDArray[Any], ids: Sequence[str], row: Mapping[str, Any]
) -> bool:
    """Say whether ranks and the names of their queries are what a row was made of."""
    if not ranks.ndim == names.ndim == 1 or not len(ranks) == len(names) > 0:
        return False
    if ranks.dtype.kind != "f" or not set(names.tolist()) <= set(ids):
        return False
    measured = retrieval_metrics(ranks, row["queries"])
    return all(math.isclose(measured[key], row[key], abs_tol=1e-6) for key in METRICS)


def _how_to_get(folder: Path, name: str) -> str:
    config, output = shlex.quote(str(folder / "config.yaml")), shlex.quote(f"output={folder}")
    again = f"python tools/train.py {config} {output} resume=true overwrite=false"
    said = f"the run is not finished or an older version made it: {again}"
    if name != "cost.json":
        return f"{said} ends it, or evaluates it again if it is finished, without training it again"
    first = "delete cost.json, then " if (folder / name).exists() else ""
    return (
        f"the run is not finished, or its cost is lost: {first}{again} ends it, or evaluates it"
        " again; of a finished run the training time stays unknown"
    )
