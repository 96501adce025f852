"""Answer questions about films on the screen."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import fusion
from fusion.inference.embedder import Embedder
from fusion.modalities import letters_of
from fusion.search.index import Hit, Index
from fusion.search.storage import DATABASE, SearchError, Storage

NAMES = {"video": "seen", "audio": "heard", "text": "said"}  # of a modality on the screen


def _model_of(folder: str) -> str | None:
    """Return where the model of an index is; None: there is no index, or it does not say."""
    if not (Path(folder) / DATABASE).exists():
        return None
    with contextlib.closing(Storage(folder)) as storage:
        place: str | None = storage.fact("model_path")
    return place


def place_of_model(folder: str) -> str:
    """Return where the model of an index is; SearchError: it does not say."""
    if (place := _model_of(folder)) is None:
        raise SearchError(f"{folder} does not say where its model is; name it: --model RUN")
    return place


def search(given: argparse.Namespace) -> None:
    """Answer a question, as the command line gives it."""
    how = {"engine": given.engine, "url": given.url}
    films = Index(given.index, **how)  # a wrong path is found first
    which = {"k": given.top, "film": given.film}
    which["within"] = [part.strip() for part in given.within.split(",") if part.strip()]
    if given.near is not None:
        hits = films.near(given.near, **which)
    else:
        place = given.model or place_of_model(given.index)
        films = Index(given.index, fusion.load(place, trust=given.trust), **how)
        hits = films.nearest(_question(films.model, given).numpy(), **which)
    if not hits and given.film:
        raise SearchError(f"no film of {given.index} has {given.film!r} in its name")
    if given.json:
        rows = [hit._asdict() | {"there": os.path.exists(hit.video)} for hit in hits]
        print(json.dumps(rows, indent=1))
    else:
        print(printed(format_hits(hits, films.about()["modalities"])))


def _question(model: Embedder, given: argparse.Namespace):  # type: ignore[no-untyped-def]
    """Embed the question; a part of a file is FILE@12-19, and all parts must be the same."""
    parts, times = {}, set()
    for name in ("audio", "video"):
        if value := getattr(given, name):
            found = re.fullmatch(r"(.+)@([\d.]+)-([\d.]+)", value)
            parts[name] = found[1] if found else value
            times.add((float(found[2]), float(found[3])) if found else (0.0, None))
    if len(times) > 1:
        raise SearchError("--audio and --video must name the same seconds")
    if given.words:
        parts["text"] = " ".join(given.words)
    start, end = next(iter(times), (0.0, None))
    return model.encode(parts, start=start, end=end)


def format_hits(hits: Sequence[Hit], modalities: Sequence[str]) -> str:
    """Write hits as a table: place, similarity, film, time, why, text."""
    paths = {hit.video: Path(hit.video).name for hit in hits}
    twice = len(set(paths.values())) < len(paths)  # films of one name in several folders
    lines = []
    for place, hit in enumerate(hits, start=1):
        why = "  ".join(
            f"{NAMES.get(name, name)} {f'{hit.by[name]:.2f}' if name in hit.by else '-'}"
            for name in letters_of(modalities).values()
        )
        time = f"{clock(hit.start)}-{clock(hit.end)}"
        text = f"  {hit.text}" if hit.text else ""
        name = hit.video if twice else paths[hit.video]
        gone = "" if os.path.exists(hit.video) else "  (the film is not there)"
        line = f"{place:>3}  {hit.score:5.2f}  {name}  {time}  {why}  id {hit.id}{text}{gone}"
        lines.append(line)
    return "\n".join(lines) or "nothing is indexed that can be compared"


def printed(text: str) -> str:
    """Replace the letters that standard output cannot write, as of names that are not UTF-8."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def clock(second: float) -> str:
    """Write a time: ``1:02``, ``1:00:02``."""
    minutes, seconds = divmod(round(second), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
