"""Approximate neighbours of large indexes by FAISS: inverted lists of 8-bit vectors.

The vectors of a combination are put into about 2 * sqrt(N) lists by k-means. A question looks into
the nearest lists alone. How many, is measured when the lists are made: as few as give a recall@10
of :data:`RECALL` for questions like clips and for questions apart from them. Clips that came later,
and questions about few clips, are compared exactly.

vectors/va.3.900000.faiss    lists of generation 3 with the clips of the first 900,000 rows

Shapes: N clips, C candidates, Q queries, E embedding width.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion.files import flush_to_disk
from fusion.search.database import SearchError
from fusion.search.engines.engine import Wanted
from fusion.search.engines.exact import Exact
from fusion.search.snapshot import Snapshot
from fusion.search.vectors import VECTORS, blocks

EXACT = 200_000  # clips of a combination that are still compared exactly
FEW = 20_000  # clips that a question is about: reading their vectors is faster than the lists
RECALL = 0.99  # wanted when lists are made, at 10 hits
QUERIES = 256  # of each kind, to measure it with
CHANGES = 0.2  # share of new and removed clips at which lists are made again
PER_LIST = 64  # vectors that k-means sees for each list

INSTALL = "install it by: pip install 'fusion[search]'"


def find_faiss() -> ModuleType | None:
    """Import FAISS; None: it is not installed."""
    try:
        return importlib.import_module("faiss")
    except ImportError:
        return None


def need_faiss() -> ModuleType:
    """Import FAISS; SearchError: it is not installed."""
    if (faiss := find_faiss()) is None:
        raise SearchError(f"the engine faiss needs FAISS; {INSTALL}")
    return faiss


class Faiss:
    """Looks into the lists of an index, if it has any; see the top of this file."""

    name = "faiss"

    def __init__(self, folder: Path) -> None:
        self.folder, self._exact = folder / VECTORS, Exact()
        self._open: dict[str, Any] = {}
        self._opening = threading.Lock()

    def candidates(self, snapshot: Snapshot, wanted: Wanted) -> NDArray[np.int64]:
        """Return places of clips (C,) among which the nearest are, with the measured recall."""
        lists = made_lists(snapshot, wanted.combination)
        old = int(np.searchsorted(snapshot.rows, lists["rows"])) if lists else 0
        count = int(np.count_nonzero(wanted.allowed[:old]))
        if count <= FEW or (index := self._lists(snapshot, lists["file"])) is None:
            return self._exact.candidates(snapshot, wanted)
        share = count / lists["clips"]
        rows = snapshot.rows[:old][wanted.allowed[:old]] if share < 1 else None
        found = _look(index, wanted.query, wanted.hits, min(count, wanted.hits), lists, share, rows)
        places = _places_of(np.sort(found), snapshot.rows)
        places = places[wanted.allowed[places]]
        if not wanted.allowed[old:].any():
            return places
        later = wanted.allowed.copy()
        later[:old] = False
        more = self._exact.candidates(snapshot, wanted._replace(allowed=later))
        return np.concatenate([places, more])

    def close(self) -> None:
        """Close the files of the lists."""
        with self._opening:
            self._open = {}

    def _lists(self, snapshot: Snapshot, file: str) -> Any:
        """Open a file of lists; None: it has just been replaced."""
        with self._opening:
            if file not in self._open:
                used = {facts["file"] for facts in (snapshot.neighbours or {}).values()}
                self._open = {name: one for name, one in self._open.items() if name in used}
                faiss = need_faiss()
                try:
                    mapped = faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY
                    index = faiss.read_index(str(self.folder / file), mapped)
                except RuntimeError:
                    return None
                lists = faiss.downcast_InvertedLists(index.invlists)
                lists.prefetch_nthread = 0  # threads for each question take longer than it does
                self._open[file] = index
            return self._open[file]


def _places_of(found: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where rows are among ascending ones; rows that have gone are left out."""
    places = np.searchsorted(rows, found)
    return places[np.append(rows, -1)[places] == found]


def made_lists(snapshot: Snapshot, combination: str) -> dict[str, Any]:
    """Return the facts of the lists of a combination; empty: there are none for its rows."""
    facts: dict[str, Any] = (snapshot.neighbours or {}).get(combination, {})
    return facts if facts.get("generation") == snapshot.generation else {}


def needs_lists(snapshot: Snapshot, combination: str) -> bool:
    """Say whether lists of a combination should be made, or made again."""
    count = snapshot.count(combination)
    if count <= EXACT:
        return False
    if not (lists := made_lists(snapshot, combination)):
        return True
    having = snapshot.having(combination)
    kept = np.count_nonzero(having[: np.searchsorted(snapshot.rows, lists["rows"])])
    new, removed = count - kept, lists["clips"] - kept
    return bool(new + removed > CHANGES * lists["clips"])


def make_lists(snapshot: Snapshot, combination: str, folder: Path) -> dict[str, Any]:
    """Write the lists of a combination into the folder of an index.

    Returns:
        The facts that :class:`Faiss` needs of them.
    """
    faiss = need_faiss()
    vectors, rows = snapshot.vectors[combination], snapshot.rows[snapshot.having(combination)]
    rng = np.random.default_rng(0)
    count = min(len(rows), int(2 * len(rows) ** 0.5))
    index = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(snapshot.width),
        snapshot.width,
        count,
        faiss.ScalarQuantizer.QT_8bit,
        faiss.METRIC_INNER_PRODUCT,
    )
    index.cp.min_points_per_centroid = 1  # no warnings: it gets what there is
    sample = rng.choice(rows, min(len(rows), PER_LIST * count), replace=False)
    index.train(vectors[np.sort(sample)])
    for block in blocks(rows):
        index.add_with_ids(vectors[block], block)
    probes, recall = _measure(index, snapshot, combination, rows, rng)
    file = f"{combination}.{snapshot.generation}.{snapshot.version}.faiss"
    path = folder / VECTORS / file
    new = path.with_suffix(".new")
    try:
        faiss.write_index(index, str(new))
        flush_to_disk(new)
        os.replace(new, path)
    except RuntimeError as error:  # of FAISS: the disk is full
        new.unlink(missing_ok=True)
        raise SearchError(f"{path} cannot be written; make room there ({error})") from None
    return {
        "file": file,
        "generation": snapshot.generation,
        "rows": len(vectors),
        "clips": len(rows),
        "probes": probes,
        "recall": recall,
    }


def remove_lists(folder: Path, but: set[str]) -> None:
    """Delete files of lists, except for some."""
    for file in [*(folder / VECTORS).glob("*.faiss"), *(folder / VECTORS).glob("*.new")]:
        if file.name not in but:
            with contextlib.suppress(OSError):  # Windows keeps files that are mapped
                file.unlink()


def _measure(
    index: Any, snapshot: Snapshot, combination: str, rows: NDArray[np.int64], rng: Any
) -> tuple[int, float]:
    """Return how many lists must be looked into, and the recall@10 that this gives at least."""
    vectors, kinds = snapshot.vectors[combination], []
    for queries in _questions(snapshot, combination, rows, rng):
        kinds.append((queries, _nearest_rows(vectors, rows, queries, 10)))

    def recall(probes: int) -> float:
        shares = [
            [
                np.isin(nearest, _look(index, query, 10, 10, {"probes": probes}, 1.0, None)).mean()
                for query, nearest in zip(queries, truth, strict=True)
            ]
            for queries, truth in kinds
        ]
        return float(min(map(np.mean, shares)))

    low, high = 0, 1
    while (reached := recall(high)) < RECALL and high < index.nlist:
        low, high = high, min(2 * high, index.nlist)
    for _ in range(2):  # to a quarter of the last step
        if (middle := (low + high) // 2) > low and (found := recall(middle)) >= RECALL:
            high, reached = middle, found
        else:
            low = middle
    return high, round(reached, 4)


def _questions(
    snapshot: Snapshot, combination: str, rows: NDArray[np.int64], rng: Any
) -> Iterator[NDArray[np.float32]]:
    """Draw questions (Q, E): like clips, between two clips, and of what the combination lacks.

    Words that ask for a picture lie apart from all pictures, and so nearer to several lists. Where
    clips have no words, questions between two clips, without what all clips share, stand for them.
    """

    def some(letters: str, among: NDArray[np.int64]) -> NDArray[np.float32]:
        chosen = rng.choice(among, min(len(among), QUERIES), replace=False)
        return np.array(snapshot.vectors[letters][chosen])

    own, mean = some(combination, rows), snapshot.mean(combination).astype(np.float32)
    yield own
    yield (own - mean) + (own[rng.permutation(len(own))] - mean)
    for letter in sorted((set(snapshot.letters) & {*snapshot.combinations}) - {*combination}):
        if snapshot.count(letter):
            yield some(letter, snapshot.rows[snapshot.having(letter)])


def _nearest_rows(
    vectors: NDArray[np.float32], rows: NDArray[np.int64], queries: NDArray[np.float32], count: int
) -> NDArray[np.int64]:
    """Return the rows nearest to each query (Q, count), of some rows."""
    best = np.zeros((len(queries), 0), np.int64)
    dots = np.zeros((len(queries), 0), np.float32)
    for block in blocks(rows, 8192):
        best = np.concatenate([best, np.broadcast_to(block, (len(queries), len(block)))], axis=1)
        dots = np.concatenate([dots, queries @ vectors[block].T], axis=1)
        if dots.shape[1] > count:
            order = np.argpartition(-dots, count, axis=1)[:, :count]
            best = np.take_along_axis(best, order, axis=1)
            dots = np.take_along_axis(dots, order, axis=1)
    return best


def _look(
    index: Any,
    query: NDArray[np.float32],
    hits: int,
    least: int,
    facts: dict[str, Any],
    share: float,
    rows: NDArray[np.int64] | None,
) -> NDArray[np.int64]:
    """Return rows of candidates, at least so many.

    Args:
        index: the lists.
        query: (E,).
        hits: wanted; more candidates are taken, because 8 bits do not order them exactly.
        least: fewer candidates than these mean that more lists must be looked into.
        facts: how many lists it takes if all clips may be found.
        share: of the clips that may be found; of fewer clips more lists are needed.
        rows: of these clips; None: all.
    """
    faiss = need_faiss()
    options = {}
    if rows is not None:
        bits = np.zeros(int(rows[-1]) + 1, bool)
        bits[rows] = True
        packed = np.packbits(bits, bitorder="little")
        options["sel"] = faiss.IDSelectorBitmap(packed)
    probes = min(index.nlist, int(np.ceil(facts["probes"] / share)))
    while True:
        parameters = faiss.SearchParametersIVF(nprobe=probes, **options)
        _, found = index.search(query[None], 4 * hits + 60, params=parameters)
        found = found[0][found[0] >= 0]
        if len(found) >= least or probes == index.nlist:
            return found.astype(np.int64)
        probes = min(2 * probes, index.nlist)
