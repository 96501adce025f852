"""The frames of films, decoded once and kept in the cache: one array, mapped into memory.

Shapes: N films, T frames of all of them, H x W pixels.
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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fusion.data.labelled.film import LabelError, LabelledFilm
from fusion.data.media.decode import MediaError
from fusion.data.media.shown import VERSION, Size, count_frames, read_shown
from fusion.files import cache_folder, flush_to_disk, lock, num_cores, write_atomically

AT_A_TIME = 32  # films that are decoded before they are written
PROBED = 20  # films of which the space is estimated
NO_PICTURE = "no picture that can be decoded"  # a problem

Part = tuple[str, float, float | None]  # video, start and end in seconds


def part_of(film: LabelledFilm) -> Part:
    """Return what of which file a film is."""
    return film.video, film.start, film.end


class FrameCache:
    """All frames of some films, scaled to one size; each film or part of one once.

    The first use decodes them, in threads, into a file of the cache. An interrupted run goes on
    where it was; of several processes one decodes and the others wait. The file belongs to these
    names, sizes and times of change.

    Args:
        folder: what the names of the films are relative to.
        films: in any order.
        size: of the frames.
        way_out: what else the user can do where the disk is full.
    """

    def __init__(
        self, folder: Path, films: Iterable[LabelledFilm], size: Size, way_out: str = ""
    ) -> None:
        self.folder, self.size, self.way_out = folder, size, way_out
        self.parts: Sequence[Part] = sorted(set(map(part_of, films)), key=str)
        states = [_state(folder / video) for video, _, _ in self.parts]
        facts = [VERSION, *size, str(folder.resolve()), *zip(self.parts, states, strict=True)]
        name = hashlib.sha256(json.dumps(facts).encode("utf-8", "surrogateescape")).hexdigest()
        self._place = cache_folder() / "frames" / name[:32]
        self._index = {part: number for number, part in enumerate(self.parts)}

    def estimate(self) -> int:
        """Estimate the bytes of all frames from those of a few films."""
        some = self.parts[:: max(1, len(self.parts) // PROBED)]
        counts = [count for part in some if (count := self._count(part))]
        return round(len(self.parts) * self._frame_bytes * float(np.mean(counts or [0])))

    def read(self, film: LabelledFilm) -> NDArray[np.uint8]:
        """Return the frames of a film, mapped: (T, H, W, 3); T is 0 if it cannot be read."""
        number = self._index[part_of(film)]
        first, last = self._ends[number], self._ends[number + 1]
        return self._pixels[first:last]

    @functools.cached_property
    def problems(self) -> dict[Part, str]:
        """Why films or parts of them cannot be read; decodes them all on the first use."""
        found = zip(self.parts, self._found, strict=True)
        return {part: why for part, why in found if isinstance(why, str)}

    @property
    def is_filled(self) -> bool:
        """Whether the films are decoded already."""
        return self._file("json").exists() and self._file("pixels").exists()

    def fill(self) -> None:
        """Decode the films unless the cache has them, with a progress bar.

        LabelError: there is no space in the cache.
        """
        if self.is_filled:
            return
        try:
            self._file("lock").parent.mkdir(parents=True, exist_ok=True)
            with self._file("lock").open("w") as file:
                is_alone = lock(file.fileno(), wait=True)
                if not self._file("pixels").exists():  # by now, through another process
                    self._decode_all("part" if is_alone else f"part-{secrets.token_hex(8)}")
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise LabelError(
                f"the disk of {self._place.parent} is full; free some, or set FUSION_CACHE to a"
                f" folder on another disk{self.way_out and f', or {self.way_out}'}"
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the pixels: another process maps the file itself."""
        return {name: value for name, value in self.__dict__.items() if name != "_pixels"}

    @functools.cached_property
    def _found(self) -> list[int | str]:
        """Of each film the number of its frames, or why it cannot be read."""
        self.fill()
        found: list[int | str] = json.loads(self._file("json").read_text(encoding="utf-8"))
        return found

    @functools.cached_property
    def _ends(self) -> NDArray[np.int64]:
        counts = [0 if isinstance(found, str) else found for found in self._found]
        return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    @functools.cached_property
    def _pixels(self) -> NDArray[np.uint8]:
        shape = (int(self._ends[-1]), self.size.height, self.size.width, 3)
        if not shape[0]:
            return np.empty(shape, np.uint8)
        return np.memmap(self._file("pixels"), np.uint8, "r", shape=shape)

    @property
    def _frame_bytes(self) -> int:
        return 3 * self.size.height * self.size.width

    def _file(self, ending: str) -> Path:
        return self._place.with_name(f"{self._place.name}.{ending}")

    def _count(self, part: Part) -> int:
        try:
            return count_frames(self.folder / part[0], *part[1:])
        except MediaError:
            return 0

    def _decode_all(self, ending: str) -> None:
        """Write the frames film after film, and go on behind those that are there."""
        part, log = self._file(ending), self._file(f"{ending}-films")
        found = list(_read_log(log))
        done = sum(count for count in found if isinstance(count, int)) * self._frame_bytes
        if not part.exists() or part.stat().st_size < done:
            found, done = [], 0
        write_atomically(log, *(json.dumps(one) + "\n" for one in found))
        with part.open("ab") as pixels, log.open("a", encoding="utf-8") as lines:
            pixels.truncate(done)  # of a film that was being written
            for frames in self._decode_from(len(found)):
                known = frames if isinstance(frames, str) else len(frames)
                if not isinstance(frames, str):
                    pixels.write(frames.tobytes())
                    pixels.flush()
                lines.write(json.dumps(known) + "\n")
                lines.flush()
                found.append(known)
        flush_to_disk(part)
        write_atomically(self._file("json"), json.dumps(found))
        os.replace(part, self._file("pixels"))
        log.unlink()

    def _decode_from(self, first: int) -> Iterator[NDArray[np.uint8] | str]:
        def decode(part: Part) -> NDArray[np.uint8] | str:
            try:
                frames = read_shown(self.folder / part[0], range, self.size, *part[1:]).frames
            except MediaError as error:
                return str(error)
            return frames if len(frames) else NO_PICTURE

        parts = iter(self.parts[first:])
        total = len(self.parts)
        bar = tqdm(desc="decoding films", total=total, initial=first, unit="film")
        # Threads are enough: FFmpeg decodes and scales without the lock of the interpreter.
        with bar, ThreadPoolExecutor(num_cores()) as pool:
            while block := list(itertools.islice(parts, AT_A_TIME)):
                yield from pool.map(decode, block)
                bar.update(len(block))


def list_problems(problems: Mapping[Part, str]) -> list[str]:
    """Say what cannot be read; what several parts of a film have in common is said once."""
    return list(dict.fromkeys(f"{part[0]}: {why}" for part, why in problems.items()))


def free_bytes() -> int:
    """Return how much space there is for the cache."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    return shutil.disk_usage(folder).free


def _state(path: Path) -> tuple[int, int] | None:
    """Return size and time of change of a file; None: it is not there."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_size, state.st_mtime_ns


def _read_log(path: Path) -> Iterator[int | str]:
    """Read the films of an interrupted run, up to the first line that is cut off or unreadable."""
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else []:
        try:
            found = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:
            return
        if not isinstance(found, int | str):
            return
        yield found
