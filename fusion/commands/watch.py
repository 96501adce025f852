"""Classify a film while it is read, and print what it shows."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from fusion.commands.search import printed
from fusion.data.media.decode import MediaError
from fusion.files import missing_folder
from fusion.tasks.classification.watching import Seen, Watcher, open_watcher


def watch(given: argparse.Namespace) -> None:
    """Watch, as the command line says; a line where the class changes, or of each frame."""
    film, last = Path(given.film), None
    if not film.is_file():
        raise MediaError(f"{film}: no such file{missing_folder(film)}; check the path")
    watcher = open_watcher(given.run, given.window, given.trust)
    hidden = not sys.stderr.isatty()
    seen = watcher.watch_film(film, given.fps)
    for found in tqdm(seen, desc="watching", unit="frame", leave=False, disable=hidden):
        if given.json:
            tqdm.write(json.dumps(as_json(watcher, found, given.fps), ensure_ascii=False))
        elif found.best != last:
            tqdm.write(printed(describe(watcher, found, given.fps)))
            last = found.best
    print(latency(watcher.times), file=sys.stderr)


def describe(watcher: Watcher, found: Seen, fps: float) -> str:
    """Write what a frame shows: its time, the most probable class, its probability."""
    share = float(found.probabilities[found.best])
    name = watcher.classes[found.best]
    return f"{found.number / fps:8.1f} s  {100 * share:5.1f} %  {name}"


def as_json(watcher: Watcher, found: Seen, fps: float) -> dict[str, float | str]:
    """Write what a frame shows, ready for JSON."""
    return {
        "second": round(found.number / fps, 3),
        "class": watcher.classes[found.best],
        "probability": round(float(found.probabilities[found.best]), 4),
        "cpu_ms": round(1e3 * found.seconds, 3),
    }


def latency(times: Sequence[float]) -> str:
    """Say how long frames took."""
    middle, high = (1e3 * float(np.quantile([*times], share)) for share in (0.5, 0.95))
    return (
        f"{len(times)} frames; each took {middle:.1f} ms of the processor (median), {high:.1f} ms"
        " (95 % of them at most)"
    )
