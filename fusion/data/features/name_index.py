"""The names of a store's videos, and the row of each name, in arrays on disk.

As Python objects, the names of a million videos take a hundred megabytes in each process; all
processes of a machine share arrays that are mapped from a file. For N names:

    names    the names in UTF-8, end to end
    ends     (N + 1,) int64, the byte at which each name begins; the last is the end of all names
    hashes   (N,) uint64, the hashes of the names, ascending
    rows     (N,) int64, the row of the name that has each hash
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def hash_name(name: bytes) -> int:
    """Return a hash of 64 bits, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")


def sort_hashes(hashes: Iterable[int]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Sort the hashes of rows 0 to N - 1; return ``hashes`` and ``rows`` of the index."""
    given = np.fromiter(hashes, np.uint64)
    rows = given.argsort(kind="stable")
    return given[rows], rows


class NameIndex(Sequence[str]):
    """Finds the row of a name, and is the sequence of all names by row.

    ``error`` makes the exception for arrays that do not fit together. After any other damage a
    name may not be found, but it never leads to the row of another.
    """

    def __init__(
        self,
        names: NDArray[np.uint8],
        ends: NDArray[np.int64],
        hashes: NDArray[np.uint64],
        rows: NDArray[np.int64],
        error: Callable[[str], ValueError],
    ) -> None:
        self._names, self._ends, self._hashes, self._rows = names, ends, hashes, rows
        self._error = error
        fit = len(ends) - 1 == len(hashes) == len(rows)
        if not (fit and ends[0] == 0 and ends[-1] == len(names)):
            raise error("its names do not fit together")

    def __len__(self) -> int:
        return len(self._hashes)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.find(name) >= 0

    def __getitem__(self, row: Any) -> Any:
        rows = range(len(self))[row]
        if isinstance(rows, range):
            return [self[one] for one in rows]
        try:
            return self.encoded(rows).decode()
        except UnicodeDecodeError:
            raise self._error(f"name {rows} is not UTF-8") from None

    def find(self, name: str) -> int:
        """Return the row of a name; -1: there is no such name."""
        encoded = name.encode(errors="surrogatepass")
        wanted = np.uint64(hash_name(encoded))
        for place in range(int(self._hashes.searchsorted(wanted)), len(self)):
            if self._hashes[place] != wanted:
                break
            row = int(self._rows[place])
            if 0 <= row < len(self) and self.encoded(row) == encoded:
                return row
        return -1

    def first_repeated(self) -> str | None:
        """Return a name that two rows have; None: no name is repeated."""
        for place in (np.flatnonzero(np.diff(self._hashes) == 0) + 1).tolist():
            row = int(self._rows[place])
            if self.find(self[row]) != row:
                return self[row]
        return None

    def encoded(self, row: int) -> bytes:
        """Return the name of a row in UTF-8."""
        begin, end = self._ends[row : row + 2].tolist()
        return self._names[max(begin, 0) : max(end, 0)].tobytes()
