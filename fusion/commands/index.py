"""Bring an index of films up to date, and say which films are in it twice."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import fusion
from fusion.commands.search import printed
from fusion.extract.job import find_videos
from fusion.extract.ray_cluster import Cluster
from fusion.inference.embedder import Embedder
from fusion.search import engines
from fusion.search.engines.choice import check_engine, prepare
from fusion.search.films.duplicates import Group, find_duplicates
from fusion.search.index import lasting
from fusion.search.indexing import index_films, prune_films, summarise
from fusion.search.ray_embedding import RayEmbedder
from fusion.search.storage import DATABASE, SearchError, Storage
from fusion.words import clock, number_of

DEFAULT = "runs/eao"  # the model of the main job


def index(given: argparse.Namespace) -> None:
    """Bring an index up to date, as the command line says, and print what was done."""
    places = [place for place in given.films if os.path.lexists(place) or not given.prune]
    if places:
        find_videos(places, leave_out=Path(given.out))  # a wrong path is found first
        if given.captions and not Path(given.captions).exists():
            raise SearchError(f"--captions: there is no {given.captions}")
        engine = _neighbours(given.engine)
        check_engine(engine, given.url, needed=not (Path(given.out) / DATABASE).exists())
        _update(given, places, engine)
    if given.prune and (not places or len(places) < len(given.films)):
        _prune(given, [place for place in given.films if place not in places])
    if given.duplicates:
        with contextlib.closing(Storage(given.out)) as storage:
            groups = find_duplicates(storage, quiet=not sys.stderr.isatty())
        print(as_json(groups) if given.json else printed(format_groups(groups)))


def _update(given: argparse.Namespace, places: Sequence[str], engine: str | None) -> None:
    with contextlib.ExitStack() as stack:
        storage = None
        if (Path(given.out) / DATABASE).exists():  # a second writer ends before the model is loaded
            storage = stack.enter_context(contextlib.closing(Storage(given.out, write=True)))
        chosen, model = _load(given, storage)
        if storage is None:
            storage = stack.enter_context(contextlib.closing(Storage(given.out, write=True)))
        names = ("captions", "cut", "windows", "step", "prune")
        options = {name: getattr(given, name) for name in names}
        if "ray" in given.engine:
            cluster = Cluster(given.ray_address, given.workers)
            place = lasting(chosen)
            options["embed"] = RayEmbedder(cluster, place, model.digest, given.trust).embed
        counts = index_films(storage, model, places, model_path=lasting(chosen), **options)
        prepare(storage, engine, given.url)
        _say(summarise(counts, storage), given)
        if not storage.select("SELECT COUNT(*) FROM clips").fetchone()[0]:
            raise SearchError(f"{given.out} has no clip; name films that can be read")


def _neighbours(given: Sequence[str]) -> str | None:
    """Return the engine that is to find neighbours, of those that the command line names."""
    named = [name for name in given if name in engines.NAMES]
    if len(named) > 1:
        raise SearchError(f"--engine: one of {', '.join(named)} can find neighbours; name one")
    return named[0] if named else None


def _load(given: argparse.Namespace, storage: Storage | None) -> tuple[str, Embedder]:
    """Load the model that is named, or that of the index, or that of the main job."""
    made_by = storage.fact("model_path") if storage else None
    if given.model is None and made_by is None and storage and storage.fact("model"):
        raise SearchError(f"{given.out} does not say where its model is; name it: --model RUN")
    chosen = given.model or made_by or DEFAULT
    if chosen == DEFAULT and not Path(chosen).exists():
        raise SearchError(
            f"there is no model at {DEFAULT}; train one in minutes by: fusion train eao; or name"
            " one: --model RUN; or take a pre-trained CLIP: --model clip:FOLDER"
        )
    device = "cpu" if "ray" in given.engine else None  # GPUs are for Ray's workers
    return chosen, fusion.load(chosen, device=device, trust=given.trust)


def _prune(given: argparse.Namespace, places: Sequence[str]) -> None:
    if not (Path(given.out) / DATABASE).exists():
        Storage(given.out).close()  # which says that there is no index
    with contextlib.closing(Storage(given.out, write=True)) as storage:
        gone = prune_films(storage, places)
        _say(summarise({"removed": gone}, storage), given)


def _say(line: str, given: argparse.Namespace) -> None:
    """Print a line; on standard error, if JSON is printed."""
    print(printed(line), file=sys.stderr if given.json else sys.stdout, flush=True)


def format_groups(groups: Sequence[Group]) -> str:
    """Write a line for each group: what it is, how alike the clips are, the films and their times.

    Of whole films no times are written.
    """
    lines = []
    for kind, parts, score in groups:
        named = [
            part.video if part.whole else f"{part.video} {clock(part.start)}-{clock(part.end)}"
            for part in parts
        ]
        lines.append(f"{kind:<10}  {score:.2f}  {', '.join(named)}")
    return "\n".join([*lines, f"{number_of(len(groups), 'group')} of films that are the same"])


def as_json(groups: Sequence[Group]) -> str:
    """Write groups as JSON: a list of objects with kind, score and films."""
    rows = [
        {"kind": g.kind, "score": round(g.score, 4), "films": [p._asdict() for p in g.parts]}
        for g in groups
    ]
    return json.dumps(rows, indent=1)
