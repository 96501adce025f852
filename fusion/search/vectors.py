"""The vectors of an index: one file for each combination, and the sums of its rows.

vectors/va.3.f32   (rows, E) float32; 3 is the generation, which a compaction raises

Shapes: R rows, E embedding width.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fusion.files import flush_to_disk
from fusion.search.database import SearchError

VECTORS = "vectors"  # folder
BLOCK = 65_536  # rows at a time
ONE = 2.0**32  # of the whole numbers that sums are kept in
LARGEST = 1000.0  # value of a vector; two million of them can be summed


class VectorFiles:
    """The files of one generation.

    Args:
        folder: of the index.
        generation: of the files.
        rows: in use; what follows them in a file is left over from a writer that was killed.
        width: E.
    """

    def __init__(self, folder: Path, generation: int, rows: int, width: int) -> None:
        self.folder, self.generation, self.rows, self.width = folder, generation, rows, width

    def file(self, combination: str) -> Path:
        """Return where the vectors of a combination are."""
        return self.folder / VECTORS / f"{combination}.{self.generation}.f32"

    def map(self, combination: str) -> NDArray[np.float32]:
        """Map the vectors of a combination into memory: (R, E)."""
        file = self.file(combination)
        if not self.rows:
            return np.zeros((0, self.width), np.float32)
        if not file.exists() or file.stat().st_size < 4 * self.rows * self.width:
            raise SearchError(f"{file} is damaged; delete {self.folder} and index the films again")
        return np.memmap(file, np.float32, "r", shape=(self.rows, self.width))

    def append(self, combination: str, values: NDArray[np.float32]) -> None:
        """Write rows behind those in use, and wait until they are on the disk."""
        if values.ndim != 2 or values.shape[1] != self.width:
            raise ValueError(
                f"vectors of {combination} must be (clips, {self.width}); got {values.shape}"
            )
        if not np.all(np.abs(values) <= LARGEST):
            raise ValueError(f"vectors of {combination} must be finite and at most {LARGEST:g}")
        file = self.file(combination)
        file.touch()
        with open(file, "r+b") as opened:
            opened.seek(4 * self.rows * self.width)
            opened.write(np.ascontiguousarray(values, np.float32).tobytes())
            opened.truncate()
            opened.flush()
            os.fsync(opened.fileno())

    def copy_to(self, other: VectorFiles, combination: str, rows: NDArray[np.int64]) -> None:
        """Write some rows of a combination as the file of another generation."""
        mapped = self.map(combination)
        with open(other.file(combination), "wb") as opened:
            for block in blocks(rows):
                opened.write(np.ascontiguousarray(mapped[block]).tobytes())
        flush_to_disk(other.file(combination))

    def remove_others(self) -> None:
        """Delete the files of other generations; their readers keep what they have mapped."""
        for file in (self.folder / VECTORS).glob("*.f32"):
            if file.name.split(".")[-2] != str(self.generation):
                with contextlib.suppress(OSError):  # Windows keeps files that are mapped
                    file.unlink()


def blocks(rows: NDArray[np.int64], size: int = BLOCK) -> Iterator[NDArray[np.int64]]:
    """Cut row numbers into parts whose vectors fit into memory."""
    for first in range(0, len(rows), size):
        yield rows[first : first + size]


def whole_sum(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Sum rows up, in units of 2**-32: (E,).

    Whole numbers have no rounding: rows can be added and taken away in any order.
    """
    return np.rint(values.astype(np.float64) * ONE).astype(np.int64).sum(axis=0)
