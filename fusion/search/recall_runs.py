"""Indexes as runs that can be compared: the recall of known captions of the same films.

See :mod:`fusion.search.recall` for the two tests.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion.data.captions.match import find_captions
from fusion.data.captions.table import Caption
from fusion.evaluation.metrics import (
    chance,
    interval_over_clips,
    interval_over_queries,
    retrieval_metrics,
)
from fusion.evaluation.ranking import Ranks
from fusion.inference.loading import load
from fusion.report.comparison import Run
from fusion.report.layout import FORMAT, Layout
from fusion.report.runs import pack_scores, run_of_scores
from fusion.search.indexing import check_model
from fusion.search.recall import (
    LARGEST,
    RIGHT,
    Asked,
    Content,
    ask_captions,
    ask_own_captions,
)
from fusion.search.storage import DATABASE, Film, SearchError, Storage
from fusion.tasks.retrieval.result import COLUMNS
from fusion.words import number_of

MISSES = (
    "a caption that the model cannot read, or whose clip lacks all that is compared, is a miss;"
    " median rank is over the others"
)
KNOWN = (
    "captions of the indexes, which were cut at them, so their times are known: each asks, the"
    " clips of all captions are candidates, the caption's own clip is right"
)
UNFAIR = {"data": "numbers of candidates differ, and among fewer it is easier"}  # facts of a run
WINDOWS = (
    "captions whose times the windows of the indexes do not know: each asks, all clips of an index"
    " are candidates; a clip of the right film is right if its intersection over union with the"
    " caption's time is 0.5 or more (IoU>=0.5), or if its centre lies within that time (centre)"
)


@dataclasses.dataclass(frozen=True)
class _Read:
    """An index of a comparison."""

    path: str
    name: str | None  # the user's
    films: Mapping[str, Film]
    content: Content
    asked: Asked


def is_index(path: str | Path) -> bool:
    """Return whether a path is the folder of an index."""
    return (Path(path) / DATABASE).exists()


def read_indexes(
    places: Sequence[tuple[str | None, str]], captions: str | None = None, trust: bool = False
) -> list[Run]:
    """Measure the recall of indexes of the same films.

    Args:
        places: of each the user's name for it, or None, and its folder.
        captions: a caption file or folder, for indexes that were cut into windows; None: the
            captions that the indexes were cut at.
        trust: see :func:`fusion.load`; models are loaded to read ``captions``.

    Raises:
        SearchError: the indexes are not of the same films, or cut at different captions.
    """
    read = [_read(*place, captions, trust) for place in places]
    for other in read[1:]:
        _check_films(read[0], other)
    tests = _share(read) if captions is None else [one.asked for one in read]
    return [_run(one, asked, captions) for one, asked in zip(read, tests, strict=True)]


def _read(name: str | None, path: str, captions: str | None, trust: bool) -> _Read:
    with contextlib.closing(Storage(path)) as storage:
        films, content = storage.films(), Content.read(storage)
        if captions is None:
            try:
                asked = ask_own_captions(content)
            except SearchError as error:
                raise SearchError(f"{path}: {error}") from None
        else:
            place = storage.fact("model_path")
            if place is None:
                raise SearchError(f"{path} does not say where its model is; index with --model")
            model = load(place, trust=trust)
            check_model(storage, model)
            found = find_captions(captions, list(films))
            rows = [row for several in found.values() for row in several if row.text.strip()]
            asked = ask_captions(content, rows, model)
    return _Read(path, name, films, content, asked)


def _check_films(one: _Read, other: _Read) -> None:
    for first, second in ((one, other), (other, one)):
        if alone := sorted(first.films.keys() - second.films.keys()):
            raise SearchError(
                f"{one.path} and {other.path} cannot be compared: only {first.path} has"
                f" {number_of(len(alone), 'film')}, such as {alone[0]}; index the same films:"
                f" fusion index FILMS --out {second.path}"
            )


def _share(read: Sequence[_Read]) -> list[Asked]:
    """Give every index the captions of all: what a film without clips has not got is a miss."""
    keyed = [_by_key(one.asked) for one in read]
    first: dict[Any, tuple[int, int]] = {}  # of each caption: an index that has it, and its place
    for number, keys in enumerate(keyed):
        for key, place in keys.items():
            first.setdefault(key, (number, place))
    for key, (number, place) in first.items():
        for one, keys in zip(read, keyed, strict=True):
            if key not in keys:
                _check_lack(read[number], one, read[number].asked.captions[place])
    named: dict[Any, int] = {}
    clips = [
        named.setdefault((n, read[n].asked.clips[place]), len(named)) for n, place in first.values()
    ]
    captions = [read[n].asked.captions[place] for n, place in first.values()]
    return [
        Asked(captions, np.array(clips), _spread(one.asked, keys, list(first)), len(named))
        for one, keys in zip(read, keyed, strict=True)
    ]


def _by_key(asked: Asked) -> dict[Any, int]:
    """Name captions by film, start and text; ends may be cut off at the end of a film."""
    keys: dict[Any, int] = {}
    for place, caption in enumerate(asked.captions):
        key, again = (caption.video, caption.start, caption.text), 0
        while (*key, again) in keys:
            again += 1
        keys[(*key, again)] = place
    return keys


def _check_lack(one: _Read, other: _Read, caption: Caption) -> None:
    """Raise a SearchError if an index lacks a caption although its film goes on so long."""
    film = other.films[caption.video]
    if film.problem is None and caption.start < film.seconds:
        raise SearchError(
            f"{one.path} and {other.path} cannot be compared: they are cut differently, only"
            f" {one.path} has the caption of {caption.video} at {caption.start:g} s; index both"
            " with the same captions, or compare with windows: --captions FILE"
        )


def _spread(asked: Asked, keys: Mapping[Any, int], every: Sequence[Any]) -> dict[str, Ranks]:
    places = np.array([keys.get(key, -1) for key in every])
    return {w: np.where(places < 0, np.nan, ranks[places]) for w, ranks in asked.ranks.items()}


def _run(one: _Read, asked: Asked, captions: str | None) -> Run:
    """Write down a test as that of a run."""
    items, counted = asked.captions, len(np.unique(asked.clips))
    table, rows = {}, {}
    for way, ranks in asked.ranks.items():
        (found,) = np.nonzero(np.isfinite(ranks))
        if len(found):
            table[way] = _row(ranks[found], asked.clips[found], asked, captions is None)
            rows[way] = ranks[found], found
    layout = _layout(asked, list(table), len(items) > counted, captions is None)
    rule = KNOWN if captions is None else WINDOWS
    searched = f"{asked.candidates:,} candidates of {number_of(len(one.films), 'film')}"
    result: dict[str, Any] = {
        "format": FORMAT,
        "set": "captions" if captions is None else Path(captions).name,
        "protocol": f"{rule}; ties count as their mean place",
        "protocol_parts": {"rule": rule, "data": searched},
        "gallery": asked.candidates if captions is None else None,
        "counted": counted,
        "clips": {"total": counted, "captions": len(items)},
        "similarity": "cosine",
        layout.rows: table,
        "ceiling": None,
        "table": layout.as_json(),
    }
    if captions is None:
        result["chance"] = chance(asked.candidates)
    names = [f"{item.video}@{item.start:g}" for item in items]
    packed = pack_scores(names, asked.clips, [item.text for item in items], rows, kind="ranks")
    about = {"index": os.path.realpath(one.path)}
    return run_of_scores(one.path, one.name, about, result, packed)


def _row(ranks: Ranks, clips: NDArray[np.int64], asked: Asked, is_own: bool) -> dict[str, Any]:
    queries = len(asked.captions)
    row: dict[str, Any] = retrieval_metrics(ranks, queries)
    if len(np.unique(asked.clips)) < queries:
        row["R@1_interval"] = interval_over_clips(ranks, clips, asked.clips)
    else:
        row["R@1_interval"] = interval_over_queries(ranks, queries)
    return row | {"queries": queries} | ({"gallery": asked.candidates} if is_own else {})


def _layout(asked: Asked, ways: Sequence[str], several: bool, is_own: bool) -> Layout:
    counts = {"queries": "queries"} | ({"gallery": "candidates"} if is_own else {})
    main = f"t->{LARGEST}" + ("" if is_own else f" {next(iter(RIGHT))}")
    return Layout(
        title="Search",
        row="direction",
        rows="directions",
        main="R@1",
        columns=COLUMNS,
        compared=("R@5", "R@10", "MedR"),
        counts=counts,
        guesses={"chance": "chance"} if is_own else {},
        names={way: _in_words(way) for way in ways},
        groups={},
        tested=number_of(len(asked.captions), "caption"),
        facts={"missing": MISSES},
        headline=(main,),
        headline_title="as fusion search compares",
        headline_rule="each clip by the largest combination that the model has of it, calibrated,"
        " as fusion search compares",
        pictured=[way for way in ways if way != main],
        asked_by_item=list(ways) if several else [],
    )


def _in_words(way: str) -> str:
    """Write ``t->va`` as text → video and audio."""
    letters = {"t": "text", "v": "video", "a": "audio"}
    found, _, rule = way.removeprefix("t->").partition(" ")
    if found == LARGEST:
        words = "all that a clip has, as in a search"
    else:
        words = " and ".join(letters.get(x, x) for x in found if x != "+")
        words += ", averaged" if "+" in found else ""
    return f"text → {words}" + (f" ({rule})" if rule else "")
