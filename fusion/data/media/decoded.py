"""Media that are decoded once into one file of the cache, and mapped into memory.

Shapes: N items, such as images or films; R rows of all of them, such as frames.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import itertools
import json
import os
import secrets
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fusion.files import cache_folder, flush_to_disk, lock, num_cores, open_lock, write_atomically

FORMAT = 1  # raise it when the files of the cache change


class DecodedCache(ABC):
    """Rows of pixels of some items.

    The first use decodes all items, in threads. An interrupted run goes on where it was. Of several
    processes one decodes and the others wait.

    Args:
        kind: folder within the cache.
        facts: all that the pixels depend on, ready for JSON; with other facts it is another file.
        count: N.
        row: shape of a row of uint8 pixels.
    """

    at_a_time: ClassVar[int]  # items that are decoded before they are written
    said: ClassVar[tuple[str, str]]  # of the progress bar: what is done, and what an item is called

    def __init__(self, kind: str, facts: Sequence[Any], count: int, row: Sequence[int]) -> None:
        named = json.dumps([FORMAT, *facts]).encode("utf-8", "surrogateescape")
        self._place = cache_folder() / kind / hashlib.sha256(named).hexdigest()[:32]
        self._count, self._row = count, tuple(row)

    @abstractmethod
    def decode(self, number: int) -> NDArray[np.uint8] | str:
        """Decode an item: its rows, or why it cannot be read."""

    @abstractmethod
    def no_space(self, found: str) -> ValueError:
        """Make the error that says that the disk is full."""

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return int(np.prod(self._row))

    @property
    def known_rows(self) -> int | None:
        """R, where it is known before anything is decoded."""
        return None

    @property
    def is_filled(self) -> bool:
        """Whether all items are decoded already."""
        try:
            found = json.loads(self._file("json").read_text(encoding="utf-8"))
            return self._file("pixels").stat().st_size == self._bytes_of(found)
        except (FileNotFoundError, ValueError):
            return False

    def fill(self) -> None:
        """Decode the items unless the cache has them, with a progress bar.

        ValueError: there is no space in the cache, see :meth:`no_space`.
        """
        if self.is_filled:
            return
        try:
            self._file("lock").parent.mkdir(parents=True, exist_ok=True)
            with open_lock(self._file("lock")) as file:
                is_alone = lock(file.fileno(), wait=True)
                if not self.is_filled:  # by now, through another process
                    self._decode_all("part" if is_alone else f"part-{secrets.token_hex(8)}")
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise self.no_space("the disk filled up") from error

    def rows(self, number: int) -> NDArray[np.uint8]:
        """Return the rows of an item, mapped; none if it cannot be read."""
        return self._pixels[self._ends[number] : self._ends[number + 1]]

    @functools.cached_property
    def found(self) -> list[int | str]:
        """Of each item the number of its rows, or why it cannot be read; fills the cache."""
        self.fill()
        found: list[int | str] = json.loads(self._file("json").read_text(encoding="utf-8"))
        return found

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the pixels: another process maps the file itself."""
        return {name: value for name, value in self.__dict__.items() if name != "_pixels"}

    @functools.cached_property
    def _ends(self) -> NDArray[np.int64]:
        counts = [0 if isinstance(found, str) else found for found in self.found]
        return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    @functools.cached_property
    def _pixels(self) -> NDArray[np.uint8]:
        shape = (int(self._ends[-1]), *self._row)
        if not shape[0]:
            return np.empty(shape, np.uint8)  # an empty file cannot be mapped
        return np.memmap(self._file("pixels"), np.uint8, "r", shape=shape)

    def _file(self, ending: str) -> Path:
        return self._place.with_name(f"{self._place.name}.{ending}")

    def _bytes_of(self, found: Sequence[int | str]) -> int:
        return self.row_bytes * sum(count for count in found if isinstance(count, int))

    def _decode_all(self, ending: str) -> None:
        """Write the rows item after item, and go on behind those that are there."""
        part, log = self._file(ending), self._file(f"{ending}-log")
        found = list(_read_log(log))
        if not part.exists() or part.stat().st_size < self._bytes_of(found):
            found = []
        free, done = shutil.disk_usage(part.parent).free, self._bytes_of(found)
        if self.known_rows is not None and free < self.known_rows * self.row_bytes - done:
            raise self.no_space(f"{free / 1e6:.0f} MB are free")
        write_atomically(log, *map(_line, found))
        with part.open("ab") as pixels, log.open("a", encoding="utf-8") as lines:
            pixels.truncate(done)  # of an item that was being written
            for made in self._decode_from(len(found)):
                if not isinstance(made, str):
                    pixels.write(made.tobytes())
                    pixels.flush()
                found.append(made if isinstance(made, str) else len(made))
                lines.write(_line(found[-1]))
                lines.flush()
        flush_to_disk(part)
        write_atomically(self._file("json"), json.dumps(found))
        os.replace(part, self._file("pixels"))
        log.unlink()

    def _decode_from(self, first: int) -> Iterator[NDArray[np.uint8] | str]:
        numbers = iter(range(first, self._count))
        doing, unit = self.said
        bar = tqdm(desc=doing, total=self._count, initial=first, unit=unit)
        # Threads are enough: Pillow and FFmpeg decode without the lock of the interpreter.
        with bar, ThreadPoolExecutor(num_cores()) as pool:
            while block := list(itertools.islice(numbers, self.at_a_time)):
                yield from pool.map(self.decode, block)
                bar.update(len(block))


def state_of(path: Path) -> tuple[int, int] | None:
    """Return size and time of change of a file; None: it is not there."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_size, state.st_mtime_ns


def _line(found: int | str) -> str:
    return json.dumps(found) + "\n"


def _read_log(path: Path) -> Iterator[int | str]:
    """Read the items of an interrupted run, up to the first line that is cut off or unreadable."""
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else []:
        try:
            found = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:
            return
        if not isinstance(found, int | str):
            return
        yield found
