"""What a finished run left for comparisons: results.json, ranks.npz and cost.json."""

from __future__ import annotations

import hashlib
import io
import json
import math
import reprlib
import shlex
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion.checkpoint import WEIGHTS
from fusion.config import ConfigError, flatten, load_config
from fusion.evaluation.metrics import retrieval_metrics
from fusion.report.comparison import Run
from fusion.report.layout import FORMAT, Layout
from fusion.report.retrieval import retrieval_layout
from fusion.training.run_folder import FREE_TO_CHANGE

NO_MATTER = (  # keys of a config that change no number that is compared
    *FREE_TO_CHANGE,
    *("data_root", "trainer.log_every", "trainer.save_every", "evaluation.queries_in_report"),
)
NUMBER = (int, float)
NEEDED: dict[str, dict[str, Any]] = {  # what is read of each file, and its type
    "results.json": {
        **dict.fromkeys(("set", "protocol"), str),
        **dict.fromkeys(("clips", "protocol_parts"), dict),
        "counted": int,
    },
    "cost.json": {
        **dict.fromkeys(("parameters", "peak_memory_bytes", "training_clips"), int),
        **dict.fromkeys(("processes", "threads"), int),
        "gflop_per_clip": NUMBER,
        "training_seconds": (*NUMBER, type(None)),
        "device": str,
    },
    "ranks.npz": dict.fromkeys(("ids", "clips", "test"), np.ndarray),
}
OPTIONAL = ("processes", "threads")  # older runs lack them


def pack_scores(
    ids: Sequence[str],
    clips: NDArray[np.int64],
    texts: Sequence[str],
    rows: Mapping[str, tuple[NDArray[np.float64], NDArray[np.int64]]],
    kind: str = "scores",
) -> bytes:
    """Write what each query got, for comparisons, as the npz file ``ranks.npz`` of a run.

    It has for each row ``ROW ranks`` or ``ROW scores`` (Q,) float64 and ``ROW queries`` (Q,), the
    names of the items that asked; ``ids`` (N,) are those of all items and ``clips`` (N,) int64 the
    numbers of their clips. Items of one name, captions of a clip, are numbered: ``x``, ``x#2``.
    ``test`` is a digest of these names and their texts, the same for the same test.

    Args:
        ids: names of the N items of the test.
        clips: (N,) numbers of their clips.
        texts: of the items, or what else must be the same where methods are compared: labels.
        rows: for each row what its queries got, (Q,), and which items they are, (Q,).
        kind: ``ranks``, of which 1 is a hit; or ``scores`` from 0 to 1, whose mean is the metric.
    """
    seen: Counter[str] = Counter()
    names = []
    for name in ids:
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    pairs = json.dumps(sorted(zip(names, texts, strict=True)))
    arrays: dict[str, Any] = {"format": FORMAT, "ids": np.asarray(names), "clips": clips}
    arrays["test"] = np.asarray(hashlib.sha256(pairs.encode()).hexdigest())
    for row, (values, queries) in rows.items():
        arrays[f"{row} {kind}"] = values
        arrays[f"{row} queries"] = arrays["ids"][queries]
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def read_run(path: str, name: str | None = None) -> Run:
    """Read what a run left; ``name`` is what the user calls its method.

    Raises:
        ConfigError: a file is missing, from a version that is too old or too new, or damaged.
    """
    folder = Path(path)
    if (folder / WEIGHTS).exists():
        raise ConfigError(
            f"{path} is a checkpoint, and runs are compared; give the folder of its run, such as"
            f" {folder.resolve().parent}"
        )
    if not (folder / "config.yaml").exists():
        raise ConfigError(
            f"{path} is no folder of a run: it has no config.yaml; give the output=FOLDER of"
            " tools/train.py"
        )
    result, cost, arrays = (_read(folder / file) for file in NEEDED)
    _check_rows(folder / "results.json", result)
    scores = _read_scores(folder / "ranks.npz", arrays, result)
    config = flatten(load_config(folder / "config.yaml"))
    seed, root = config.pop("seed"), config["data_root"]
    config = {k: _below_root(v, root) for k, v in config.items() if k not in NO_MATTER}
    ids, clips, test = arrays["ids"].tolist(), arrays["clips"], str(arrays["test"])
    return Run(path, name, seed, config, result, cost, ids, clips, test, scores)


def _below_root(value: Any, root: str | None) -> Any:
    """Write a path below ``data_root`` without it: the same data may lie anywhere."""
    if isinstance(value, list):
        return [_below_root(one, root) for one in value]
    stem = (root or "").rstrip("/")
    if root and isinstance(value, str) and f"{value}/".startswith(f"{stem}/"):
        return f"data_root/{value[len(stem) :].lstrip('/')}"
    return value


def _read(file: Path) -> dict[str, Any]:
    try:
        if file.suffix == ".npz":
            with np.load(file) as opened:
                values: dict[str, Any] = dict(opened)
        else:
            values = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{file.parent} has no {file.name}; {_how_to_get(file)}") from None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise _unreadable(file, error) from None
    _check(file, values, {})
    if values.get("format", 0) not in range(FORMAT + 1):
        raise ConfigError(
            f"{file} has format {values['format']}, and this version of fusion reads formats up to"
            f" {FORMAT}; install the version that wrote it"
        )
    _check(file, values, NEEDED[file.name])
    return values


def _check(file: Path, values: Any, kinds: Mapping[str, Any], where: str = "") -> None:
    """Check that a part of a file is a dict which has these keys, each of its type."""
    if not isinstance(values, dict):
        raise _unreadable(file, f"{where or 'its content'} cannot be {reprlib.repr(values)}")
    for key, kind in kinds.items():
        place = f"{where}: {key}" if where else key
        if key in values and not isinstance(values[key], kind):
            raise _unreadable(file, f"{place} cannot be {reprlib.repr(values[key])}")
        if key not in values and key not in OPTIONAL:
            raise ConfigError(f"{file} lacks {place!r}; {_how_to_get(file)}")


def _check_rows(file: Path, result: dict[str, Any]) -> None:
    """Check that rows hold the numbers that are read of them; give an older result its layout."""
    _check(file, result["protocol_parts"], {"rule": str, "data": str}, "protocol_parts")
    if "table" not in result:
        _check(file, result, {"directions": dict})
    try:
        layout = Layout.of(result) if "table" in result else retrieval_layout(result)
    except (TypeError, ValueError, AttributeError) as error:
        raise _unreadable(file, error) from None
    result["table"] = layout.as_json()
    _check(file, result, {layout.rows: dict})
    main = {layout.main: NUMBER}
    numbers = main | dict.fromkeys((*layout.compared, *layout.counts), NUMBER)
    for key, kinds in {layout.rows: numbers, "by_cosine": numbers, "ceiling": main}.items():
        if result.get(key) is not None:
            _check(file, result[key], {}, key)
            for row, values in result[key].items():
                _check(file, values, kinds, f"{key}: {row}")
    for key in layout.guesses.values():
        if key in result:
            _check(file, result[key], main, key)


def _read_scores(
    file: Path, arrays: Mapping[str, NDArray[Any]], result: Mapping[str, Any]
) -> dict[str, dict[str, float]]:
    """Give the scores of each row by name of the query, checked against the result."""
    ids, clips, layout = arrays["ids"], arrays["clips"], Layout.of(result)
    if ids.ndim != 1 or clips.shape != ids.shape or clips.dtype.kind != "i":
        raise _unreadable(file, "its names and numbers do not fit")
    if len(np.unique(ids)) < len(ids):
        raise ConfigError(f"{file} has the same name for several clips; give each its own name")
    scores = {}
    for way, row in result[layout.rows].items():
        found = _scores_of_row(arrays, way, row, layout.main)
        if found is None:
            raise ConfigError(
                f"{file} and results.json disagree about {way}, so they are of two runs;"
                f" {_how_to_get(file)}"
            )
        scores[way] = found
    return scores


def _scores_of_row(
    arrays: Mapping[str, NDArray[Any]], way: str, row: Mapping[str, Any], main: str
) -> dict[str, float] | None:
    """Give the scores of a row by name of the query; None if the row was not made of them."""
    kind = "ranks" if f"{way} ranks" in arrays else "scores"
    values, names = (arrays.get(f"{way} {key}", np.zeros(0)) for key in (kind, "queries"))
    if not values.ndim == names.ndim == 1 or not len(values) == len(names) > 0:
        return None
    if values.dtype.kind != "f" or not set(names.tolist()) <= set(arrays["ids"].tolist()):
        return None
    total = row.get("queries", len(values))
    measured = {main: 100 * values.sum() / total}
    if kind == "ranks":
        measured, values = retrieval_metrics(values, total), (values == 1).astype(np.float64)
    shared = measured.keys() & row.keys()
    if not all(math.isclose(measured[key], row[key], abs_tol=1e-6) for key in shared):
        return None
    return dict(zip(names.tolist(), values.tolist(), strict=True))


def _unreadable(file: Path, error: object) -> ConfigError:
    return ConfigError(f"{file} cannot be read: {error}; {_how_to_get(file)}")


def _how_to_get(file: Path) -> str:
    words = shlex.join([str(file.parent / "config.yaml"), f"output={file.parent}"])
    again = f"python tools/train.py {words} resume=true overwrite=false"
    if file.name != "cost.json":
        return (
            f"the run is not finished or an older version made it: {again} ends it, or evaluates it"
            " again if it is finished, without training it again"
        )
    first = "delete cost.json, then " if file.exists() else ""
    return (
        f"the run is not finished, or its cost is lost: {first}{again} ends it, or evaluates it"
        " again; of a finished run the training time stays unknown"
    )
