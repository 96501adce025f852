"""Pairs of clips of different films that look the same: by their vectors, then by their pictures.

The vectors find candidates: what a film is about is not what it is, so two films of one speaker may
be nearer than a film and its re-encoded copy. The thumbnails tell them apart.

Shapes: N clips, P pairs, E embedding width, M nearest clips.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fusion.search.storage import Storage

NEAREST = 16  # M: clips that a clip is compared with, so 100,000 clips have a bounded number
CANDIDATE = 0.8  # cosine; a re-encoded or trimmed copy has 0.86 and more in 95 of 100 clips
NEAR = 0.93  # cosine of clips that may be the same although their pictures are of other moments
SAME_PICTURE = 4.0  # of 255, mean difference; copies have less than 3, others more than 5
FLAT = 4.0  # of 255, standard deviation in a picture that shows nothing, such as a black one
_GRID = (32, 18)  # width and height at which pictures are compared
_ROWS, _COLUMNS = 1024, 16_384  # of the similarities that are in memory at a time


class Clips(NamedTuple):
    """The clips of an index, in the order of their rows."""

    ids: NDArray[np.int64]  # (N,)
    rows: NDArray[np.int64]  # (N,) in the vector files
    films: NDArray[np.int64]  # (N,) number of the film
    times: NDArray[np.float64]  # (N, 2) first and last second
    has: list[str]  # letters of the modalities, without text

    @classmethod
    def of(cls, storage: Storage) -> Clips:
        """Read them."""
        found = storage.select("SELECT id, row, film, start, end, has FROM clips ORDER BY row")
        rows = found.fetchall()
        numbers = np.array([row[:3] for row in rows], np.int64).reshape(-1, 3)
        times = np.array([row[3:5] for row in rows], np.float64).reshape(-1, 2)
        ids, row_numbers, films = numbers.T
        return cls(ids, row_numbers, films, times, [row[5].replace("t", "") for row in rows])


class Pairs(NamedTuple):
    """Pairs of clips."""

    first: NDArray[np.int64]  # (P,) places in Clips
    second: NDArray[np.int64]
    cosines: NDArray[np.float32]
    seen: NDArray[np.bool_]  # their pictures are the same, and show something


def find_pairs(storage: Storage, clips: Clips, chosen: NDArray[np.bool_], quiet: bool) -> Pairs:
    """Find pairs of clips of different films that look the same, or that may sound the same.

    Each clip is compared in the largest combination without text that it has, with the nearest
    clips of other films that have it too.

    Args:
        storage: a reader of the index.
        clips: all of it.
        chosen: (N,) clips to compare.
        quiet: show no progress.
    """
    combinations = [c for c in storage.fact("combinations", ()) if "t" not in c]
    parts = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))]
    for combination in combinations:
        has = np.array([set(combination) <= set(x) for x in clips.has], bool)
        larger = [c for c in combinations if len(c) > len(combination)]
        most = np.array([not any(set(c) <= set(x) for c in larger) for x in clips.has], bool)
        asked, others = np.flatnonzero(chosen & has & most), np.flatnonzero(chosen & has)
        vectors = storage.vectors(combination)
        parts.append(_nearest(vectors, clips, asked, others, combination, quiet))
    first, second, cosines = (np.concatenate(x) for x in zip(*parts, strict=True))
    return _compare_pictures(storage, clips, first, second, cosines)


def _nearest(
    vectors: NDArray[np.float32],
    clips: Clips,
    asked: NDArray[np.int64],
    others: NDArray[np.int64],
    combination: str,
    quiet: bool,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Find the M nearest clips of other films for each clip asked for, block by block."""
    first, second, cosines = [], [], []
    starts = range(0, len(asked), _ROWS)
    for start in tqdm(starts, desc=f"comparing {combination}", disable=quiet or len(starts) < 3):
        mine = asked[start : start + _ROWS]
        query = vectors[clips.rows[mine]]
        best = np.full((len(mine), NEAREST), -1.0, np.float32)
        found = np.full((len(mine), NEAREST), -1, np.int64)
        for column in range(0, len(others), _COLUMNS):
            theirs = others[column : column + _COLUMNS]
            values = query @ vectors[clips.rows[theirs]].T
            values[clips.films[mine][:, None] == clips.films[theirs][None]] = -1
            keep = np.flatnonzero(values.max(axis=1, initial=-1) >= CANDIDATE)
            top = min(NEAREST, len(theirs))
            places = np.argpartition(values[keep], -top, axis=1)[:, -top:]
            both = np.concatenate([best[keep], np.take_along_axis(values[keep], places, 1)], 1)
            which = np.concatenate([found[keep], theirs[places]], 1)
            order = np.argsort(-both, axis=1, kind="stable")[:, :NEAREST]
            best[keep] = np.take_along_axis(both, order, 1)
            found[keep] = np.take_along_axis(which, order, 1)
        row, column_ = np.nonzero(best >= CANDIDATE)
        first.append(mine[row])
        second.append(found[row, column_])
        cosines.append(best[row, column_])
    if not first:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)
    return np.concatenate(first), np.concatenate(second), np.concatenate(cosines)


def _compare_pictures(
    storage: Storage,
    clips: Clips,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    cosines: NDArray[np.float32],
) -> Pairs:
    """Leave out pairs whose pictures differ, and whose sound cannot tell either."""
    needed = np.unique(np.concatenate([first, second]))
    place = np.zeros(len(clips.ids), np.int64)
    place[needed] = np.arange(len(needed))
    grids = _grids(storage, clips.ids[needed].tolist())
    shown = grids.std(axis=1) >= FLAT if len(grids) else np.zeros(0, bool)
    heard = np.array(["a" in has for has in clips.has], bool)
    same, seen = np.zeros(len(first), bool), np.zeros(len(first), bool)
    for start in range(0, len(first), _COLUMNS):
        part = slice(start, start + _COLUMNS)
        one, other = place[first[part]], place[second[part]]
        difference = np.abs(grids[one].astype(np.int16) - grids[other]).mean(axis=1)
        seen[part] = shown[one] & shown[other] & (difference <= SAME_PICTURE)
        near = ~(shown[one] | shown[other]) | (cosines[part] >= NEAR)
        same[part] = seen[part] | (near & heard[first[part]] & heard[second[part]])
    return Pairs(first[same], second[same], cosines[same], seen[same])


def _grids(storage: Storage, ids: Sequence[int]) -> NDArray[np.uint8]:
    """Read thumbnails as small grey pictures, (N, pixels); black where there is none."""
    grids = np.zeros((len(ids), _GRID[0] * _GRID[1]), np.uint8)
    decoder = av.CodecContext.create("mjpeg", "r")
    decoder.thread_count = 1  # each picture comes out at once
    for place, number in enumerate(ids):
        query = "SELECT jpeg FROM thumbnails WHERE clip = ?"
        found = storage.select(query, (number,)).fetchone()
        if found is not None:
            with contextlib.suppress(av.FFmpegError, IndexError):
                frame: Any = decoder.decode(av.Packet(found[0]))[0]
                small = frame.reformat(*_GRID, "gray", interpolation="AREA")
                grids[place] = small.to_ndarray().reshape(-1)
    return grids
