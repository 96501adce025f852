"""What a finished run left for comparisons: results.json, ranks.npz and cost.json."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import reprlib
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion.config import ConfigError, flatten, load_config
from fusion.data.untrusted.npz import read_arrays
from fusion.data.untrusted.reading import decode_json, read_bytes, read_json
from fusion.evaluation.metrics import retrieval_metrics
from fusion.evaluation.missing_table import PREFIX, curves_of_arrays
from fusion.report.comparison import Run
from fusion.report.layout import FORMAT, Layout
from fusion.training.run_folder import FILES
from fusion.training.safety.changes import NO_EFFECT

NO_MATTER = (  # keys of a config that change no number that is compared
    *NO_EFFECT,
    *("data_root", "trainer.log_every", "trainer.save_every", "evaluation.queries_in_report"),
    "evaluation.tune_late_average",  # it adds rows and changes none
)
MOST_SCORES = 2**30  # bytes of a file of scores; those of 100,000 queries have 2**25
NUMBER = (int, float)
GIVE = "give the output=FOLDER of training, or a file that fusion evaluate --json FILE wrote"
COST = ("parameters", "peak_memory_bytes", "training_clips", "gflop_per_clip")


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


def add_arrays(scores: bytes, arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Add arrays to packed scores, or replace those of the same name."""
    packed: dict[str, Any] = read_arrays(scores)
    file = io.BytesIO()
    np.savez_compressed(file, **(packed | dict(arrays)))
    return file.getvalue()


def add_missing(scores: bytes, measured: bytes) -> bytes:
    """Add the curves of missing modalities of one evaluation to the packed scores of another."""
    found = read_arrays(measured)
    return add_arrays(scores, {k: v for k, v in found.items() if k.startswith(f"{PREFIX} ")})


def add_model(
    scores: bytes, config: Mapping[str, Any], checkpoint: str | Path, parameters: int
) -> bytes:
    """Add to packed scores which model they are of, so that they can be compared without a run."""
    path = Path(checkpoint)
    in_a_run = (path.parent / "config.yaml").exists()  # where seeds have checkpoints of one name
    about: dict[str, Any] = {"config": config, "parameters": parameters}
    about["checkpoint"] = path.name if in_a_run else str(path)
    return add_arrays(scores, {"model": np.asarray(json.dumps(about))})


def read_run(
    path: str,
    name: str | None = None,
    complete: Callable[[dict[str, Any]], dict[str, Any]] = dict,
) -> Run:
    """Read what a run left, or an evaluation; ``name`` is what the user calls its method.

    ``path`` is the folder of a run, or a file that ``fusion evaluate --json`` wrote, whose cost is
    not known. ``complete`` adds to the result of an older version what it lacks.

    Raises:
        ConfigError: a file is missing, from a version that is too old or too new, or damaged.
    """
    folder = Path(path)
    if folder.is_file() and folder.name != "results.json":
        return _read_evaluation(path, name, complete)
    folder = folder.parent if folder.is_file() else folder
    if not folder.exists():
        raise ConfigError(f"there is no {path}; {GIVE}")
    if not (folder / "config.yaml").exists():
        raise ConfigError(f"{path} is no folder of a run: it has no config.yaml; {GIVE}")
    with _opened(folder / "results.json") as values:
        result = complete(values)
        _check_result(result)
    with _opened(folder / "cost.json") as cost:
        _check(cost, COST)
        _check(cost, ("training_seconds",), (*NUMBER, type(None)))
        _check(cost, ("device",), str)
        _check(cost, {"processes", "threads"} & cost.keys())  # older runs lack them
    with _opened(folder / "ranks.npz") as arrays:
        scores = _read_scores(arrays, result)
    config = load_config(folder / "config.yaml", own=False)
    return Run(path, name, config["seed"], _compared_keys(config), result, cost, *scores)


def _read_evaluation(
    path: str, name: str | None, complete: Callable[[dict[str, Any]], dict[str, Any]]
) -> Run:
    file = Path(path)
    with _opened(file) as values:
        result = complete(values)
        _check_result(result)
    with _opened(file.with_suffix(".npz")) as arrays:
        scores = _read_scores(arrays, result)
        model = decode_json(str(arrays["model"]))
        config, checkpoint = model["config"], {"checkpoint": model["checkpoint"]}
        _check(model, ("parameters",))
    cost = dict.fromkeys((*COST, "training_seconds", "device")) | {
        "parameters": model["parameters"]
    }
    keys = _compared_keys(config) | checkpoint
    return Run(path, name, config["seed"], keys, result, cost, *scores)


def run_of_scores(
    path: str,
    name: str | None,
    config: Mapping[str, Any],
    result: Mapping[str, Any],
    scores: bytes,
) -> Run:
    """Make a run of a result and of what :func:`pack_scores` gives; its cost is not known."""
    read = _read_scores(read_arrays(scores), result)
    cost = dict.fromkeys((*COST, "training_seconds", "device"))
    return Run(path, name, 0, config, result, cost, *read)


def _read_scores(arrays: Mapping[str, NDArray[Any]], result: Mapping[str, Any]) -> tuple[Any, ...]:
    """Give the fields of a Run that are read from its scores, from ``ids`` on."""
    ids, clips, test = arrays["ids"], arrays["clips"], str(arrays["test"])
    if ids.ndim != 1 or clips.shape != ids.shape or clips.dtype.kind != "i":
        raise ValueError("its names and numbers do not fit")
    if len(np.unique(ids)) < len(ids):
        raise ValueError("several clips have the same name; give each its own name")
    layout = Layout.of(result)
    scores = {
        way: _scores_of_row(arrays, way, row, layout.main)
        for way, row in result[layout.rows].items()
    }
    return ids.tolist(), clips, test, scores, curves_of_arrays(arrays)


def _compared_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """Give what makes a method: a config without the seed and what changes no result."""
    flat, root = flatten(config), config["data_root"]
    return {k: _below_root(v, root) for k, v in flat.items() if k not in (*NO_MATTER, "seed")}


def _below_root(value: Any, root: str | None) -> Any:
    """Write a path below ``data_root`` without it: the same data may lie anywhere."""
    if isinstance(value, list):
        return [_below_root(one, root) for one in value]
    stem = (root or "").rstrip("/")
    if root and isinstance(value, str) and f"{value}/".startswith(f"{stem}/"):
        return f"data_root/{value[len(stem) :].lstrip('/')}"
    return value


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[dict[str, Any]]:
    """Read a file of a run; an error of the ``with`` block becomes one line that names the file."""
    try:
        if file.suffix == ".npz":
            values: dict[str, Any] = read_arrays(read_bytes(file, MOST_SCORES))
        else:
            values = read_json(file)
        if values.get("format", 0) not in range(FORMAT + 1):
            raise ConfigError(
                f"{file} has format {values['format']}, and this version of fusion reads formats up"
                f" to {FORMAT}; install the version that wrote it"
            )
        yield values
    except ConfigError:
        raise
    except FileNotFoundError:
        raise ConfigError(f"{file.parent} has no {file.name}; {_how_to_get(file)}") from None
    except KeyError as error:
        raise ConfigError(f"{file} lacks {error}; {_how_to_get(file)}") from None
    except (AttributeError, EOFError, OSError, TypeError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read: {error}; {_how_to_get(file)}") from None


def _check_result(result: Mapping[str, Any]) -> None:
    layout = Layout.of(result)
    _check(result, ("set", "protocol"), str)
    _check(result, ("clips", "protocol_parts", layout.rows), dict)
    _check(result, ("counted",))
    _check(result["protocol_parts"], ("rule", "data"), str)
    numbers = (layout.main, *layout.compared, *layout.counts)
    tables = {layout.rows: numbers, "by_cosine": numbers, "ceiling": [layout.main]}
    for key, names in tables.items():
        for row in (result.get(key) or {}).values():
            _check(row, names)
    for key in result.keys() & set(layout.guesses.values()):
        _check(result[key], [layout.main])


def _check(values: Mapping[str, Any], keys: Iterable[str], kind: Any = NUMBER) -> None:
    if not isinstance(values, dict):
        raise TypeError(f"a part of it cannot be {reprlib.repr(values)}")
    for key in keys:
        if not isinstance(values[key], kind):
            raise TypeError(f"{key} cannot be {reprlib.repr(values[key])}")


def _scores_of_row(
    arrays: Mapping[str, NDArray[Any]], way: str, row: Mapping[str, Any], main: str
) -> dict[str, float]:
    """Give the scores of a row by name of the query; ValueError if the row was not made of them."""
    kind = "ranks" if f"{way} ranks" in arrays else "scores"
    values, names = (arrays.get(f"{way} {key}", np.zeros(0)) for key in (kind, "queries"))
    fits = values.dtype.kind == "f" and values.shape == names.shape == (names.size,)
    if fits and names.size and set(names.tolist()) <= set(arrays["ids"].tolist()):
        total = row.get("queries", len(values))
        measured = {main: 100 * values.sum() / total}
        if kind == "ranks":
            measured, values = retrieval_metrics(values, total), (values == 1).astype(np.float64)
        shared = measured.keys() & row.keys()
        if all(math.isclose(measured[key], row[key], abs_tol=1e-6) for key in shared):
            return dict(zip(names.tolist(), values.tolist(), strict=True))
    raise ValueError(f"it and results.json disagree about {way}, so they are of two runs")


def _how_to_get(file: Path) -> str:
    folder = file.parent
    if file.name not in FILES:
        pair = f"{file.with_suffix('.json')} and {file.with_suffix('.npz').name}"
        return (
            f"copy both files of an evaluation, {pair}, or write them again: fusion evaluate"
            f" CHECKPOINT --json {shlex.quote(str(file.with_suffix('.json')))}"
        )
    if file.name == "results.json" and not file.exists() and (folder / "report.html").exists():
        words = shlex.join(["fusion", "evaluate", str(folder)])
        return (
            "the run is finished, and its data had nothing to evaluate it on; name a test and"
            f" compare the file: {words} --set CONFIG --json FILE"
        )
    words = shlex.join([str(folder / "config.yaml"), f"output={folder}"])
    is_cost = file.name == "cost.json"
    first = "delete cost.json, then " if is_cost and file.exists() else ""
    lost = "; of a finished run the training time stays unknown" if is_cost else ""
    return (
        f"the run is not finished or an older version made it: {first}fusion train {words}"
        " resume=true overwrite=false ends it, or evaluates it again if it is finished, without"
        f" training it again{lost}"
    )
