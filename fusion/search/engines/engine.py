"""What a search asks of an engine, and how exactly candidates are compared.

An engine only proposes candidates. Their cosines are then computed in one fixed way, so the scores
and the order of what is found are the same with every engine and any number of threads.

Shapes: N clips, C candidates, R rows of the vector files, E embedding width.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fusion.search.snapshot import Snapshot

BLOCK = 4_096  # rows at a time


class Wanted(NamedTuple):
    """The clips that are wanted of one combination."""

    combination: str
    query: NDArray[np.float32]  # (E,)
    hits: int  # how many
    has: tuple[str, ...]  # modalities of the clips that may be found
    films: tuple[int, ...] | None  # numbers of the films that may be found; None: all
    allowed: NDArray[np.bool_]  # (N,) what follows from both


class Engine(Protocol):
    """Finds candidates."""

    name: str

    def candidates(self, snapshot: Snapshot, wanted: Wanted) -> NDArray[np.int64]:
        """Return places of clips (C,) among which the wanted ones are, or most of them."""
        ...

    def close(self) -> None:
        """Close files and connections."""
        ...


def exact_dots(
    vectors: NDArray[np.float32], rows: NDArray[np.int64], query: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Multiply some rows (R, E) with a query (E,): (C,), the same bits for any other rows."""
    wide = query.astype(np.float64)
    parts = [
        (vectors[rows[first : first + BLOCK]].astype(np.float64) * wide).sum(axis=1)
        for first in range(0, len(rows), BLOCK)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)
