"""Compare a question with every clip: no other package is needed, and nothing is missed.

Shapes: N clips, C candidates, E embedding width.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fusion.search.engines.engine import Wanted
from fusion.search.snapshot import Snapshot
from fusion.search.vectors import BLOCK


class Exact:
    """Multiplies the query with the vectors in the memory map, block by block."""

    name = "exact"

    def candidates(self, snapshot: Snapshot, wanted: Wanted) -> NDArray[np.int64]:
        """Return the places of the nearest clips (C,), and of those that may be as near."""
        places = np.flatnonzero(wanted.allowed)
        vectors = snapshot.vectors[wanted.combination]
        margin = _rounding(wanted.query, snapshot.sums[wanted.combination][1])
        best, scores = np.zeros(0, np.int64), np.zeros(0, np.float32)
        bar = np.float32(-np.inf)
        for first in range(0, len(places), BLOCK):
            block = places[first : first + BLOCK]
            # With @, the threads of BLAS wait for one another on a busy machine.
            dots = np.einsum("ij,j->i", _rows(vectors, snapshot.rows[block]), wanted.query)
            near = dots >= bar  # a few, but for the first block
            block, dots = block[near], dots[near]
            best, scores = np.append(best, block), np.append(scores, dots)
            if len(best) > wanted.hits:
                bar = np.partition(scores, -wanted.hits)[-wanted.hits] - margin
                near = scores >= bar
                best, scores = best[near], scores[near]
        return best

    def close(self) -> None:
        """Nothing is open."""


def _rounding(query: NDArray[np.float32], longest: float) -> np.float32:
    """Return what two dot products of float32 may differ by, in whatever order they are summed."""
    length = float(np.linalg.norm(query.astype(np.float64)))
    return np.float32(4 * len(query) * 2.0**-24 * length * longest)


def _rows(vectors: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return some rows, ascending, without copying them if they follow one another."""
    first, last = int(rows[0]), int(rows[-1]) + 1
    return vectors[first:last] if last - first == len(rows) else vectors[rows]
