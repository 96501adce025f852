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
from typing import Any

import fusion
from fusion.inference.embedder import Embedder
from fusion.modalities import letters_of
from fusion.search.index import Hit, Index
from fusion.search.storage import DATABASE, SearchError, Storage
from fusion.words import clock, visible

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
    if not hits:
        _say_why_nothing(films, given)
    if given.json:
        rows = [hit._asdict() | {"there": os.path.exists(hit.video)} for hit in hits]
        print(json.dumps(rows, indent=1))
    else:
        print(printed(format_hits(hits, films.about()["modalities"])))


def _say_why_nothing(films: Index, given: argparse.Namespace) -> None:
    """Raise a SearchError that says why nothing was found; JSON is an empty list instead."""
    named = [film for film in films.films() if given.film and given.film in film.name]
    if given.film and not named:
        raise SearchError(f"no film of {given.index} has {given.film!r} in its name")
    if named:
        what = f"--in {given.within}" if given.within else "a search compares"
        raise SearchError(f"{named[0].name} has no clip with what {what}; leave out --film or --in")
    if not given.json:
        raise SearchError(f"{given.index} has no clip that can be compared")


def _part(value: str) -> tuple[str, float, float | None]:
    """Split FILE@12-19 or FILE@0:12-0:19 into the file, the start and the end in seconds."""
    if found := re.fullmatch(r"(.+)@([\d.:]+)-([\d.:]+)", value):
        with contextlib.suppress(ValueError):
            return found[1], _seconds(found[2]), _seconds(found[3])
    if "@" in value and not os.path.exists(value):
        raise SearchError(f"{value}: a part of a file is FILE@12-19 or FILE@0:12-0:19")
    return value, 0.0, None


def _seconds(time: str) -> float:
    return sum(float(part) * 60**i for i, part in enumerate(reversed(time.split(":"))))


def _question(model: Embedder, given: argparse.Namespace) -> Any:
    """Embed the question; all its files must be cut at the same seconds."""
    parts: dict[str, str] = {}
    times: set[tuple[float, float | None]] = set()
    for name in ("audio", "video"):
        if value := getattr(given, name):
            parts[name], start, end = _part(value)
            times.add((start, end))
    if len(times) > 1:
        raise SearchError("--audio and --video must name the same seconds")
    if given.words:
        parts["text"] = " ".join(given.words)
    start, end = next(iter(times), (0.0, None))
    return model.encode(parts, start=start, end=end)


def format_hits(hits: Sequence[Hit], modalities: Sequence[str]) -> str:
    """Write hits as a table: place, similarity, film, time, why, text."""
    lines = []
    for place, hit in enumerate(hits, start=1):
        why = "  ".join(
            f"{NAMES.get(name, name)} {f'{hit.by[name]:.2f}' if name in hit.by else '-'}"
            for name in letters_of(modalities).values()
        )
        time = f"{clock(hit.start)}-{clock(hit.end)}"
        text = f"  {_line(hit.text)}" if hit.text else ""
        gone = "" if os.path.exists(hit.video) else "  (the film is not there)"
        film = f"{_line(hit.name)}  {time}"
        lines.append(f"{place:>3}  {hit.score:5.2f}  {film}  {why}  id {hit.id}{text}{gone}")
    return "\n".join(lines)


def _line(text: str) -> str:
    """Replace control characters, which could write anywhere on a terminal."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", text)


def printed(text: str) -> str:
    """Replace what standard output cannot write, as of names that are not UTF-8, and escapes."""
    encoding = sys.stdout.encoding or "utf-8"
    return visible(text).encode(encoding, "backslashreplace").decode(encoding)
