"""The images of a data set, decoded once and kept in the cache: one array, mapped into memory.

Shapes: N images, S pixels, the side of each.
"""

from __future__ import annotations

import contextlib
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
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from fusion.data.features.problems import name_some, tolerate
from fusion.data.questions.decode import VERSION, ImageError, decode_image, quiet
from fusion.files import (
    cache_folder,
    flush_to_disk,
    lock,
    missing_folder,
    num_cores,
    write_atomically,
)
from fusion.words import number_of

AT_A_TIME = 64  # images that are decoded before they are written


class Images:
    """Some images of a folder, all scaled to one size; an image that cannot be read is missing.

    The first use decodes all of them, in threads, into one file of the cache. An interrupted run
    goes on where it was. Of several processes one decodes and the others wait. The file belongs to
    these names, sizes and times of change: if an image is changed, all are decoded again.

    Args:
        folder: what the names are relative to.
        names: of the files; order and repetitions do not matter.
        size: S.

    Attributes:
        names: each once, in order.

    Raises:
        ImageError: there is no such folder, or it has none of the images.
    """

    def __init__(self, folder: Path, names: Iterable[str], size: int) -> None:
        self.folder, self.size = folder, size
        self.names: Sequence[str] = sorted(set(names))
        if not folder.is_dir():
            where = missing_folder(folder)
            raise ImageError(
                f"data.images: there is no folder {folder}{where}; name that of images"
            )
        states = [_state(folder / name) for name in self.names]
        if self.names and not any(states):
            raise ImageError(
                f"data.images: {folder} has none of {number_of(len(states), 'image')} that the"
                f" questions name (such as {self.names[0]}); name the folder that has them"
            )
        facts = [VERSION, size, str(folder.resolve()), *zip(self.names, states, strict=True)]
        named = json.dumps(facts).encode("utf-8", "surrogateescape")
        self._place = cache_folder() / "images" / hashlib.sha256(named).hexdigest()[:32]
        self._index = {name: number for number, name in enumerate(self.names)}

    def __len__(self) -> int:
        """N."""
        return len(self.names)

    def read(self, name: str) -> Tensor:
        """Return an image: (1, 3, S, S) uint8 RGB; (0, 3, S, S) if it cannot be read."""
        if name not in self._index or name in self.unreadable:
            return torch.zeros(0, 3, self.size, self.size, dtype=torch.uint8)
        return torch.from_numpy(self._pixels[self._index[name]].copy())[None]

    @functools.cached_property
    def unreadable(self) -> Mapping[str, str]:
        """Why images cannot be read, by name; decodes them all on the first use."""
        self.fill()
        found: dict[str, str] = json.loads(self._file("json").read_text(encoding="utf-8"))
        return found

    def check(self, source: str | Path, bad: str, max_bad: float) -> None:
        """Warn of images that cannot be read; ``source`` is the file that names them.

        ValueError: their share is more than ``max_bad``. ``bad`` says what becomes of them.
        """
        if self.unreadable:
            named = [f"{name}: {reason}" for name, reason in self.unreadable.items()]
            said = f"{source}: {len(named)} of {len(self)} images in {self.folder} cannot be read"
            said += f" ({name_some(named, '; ')})"
            tolerate(said, len(named) / len(self), bad, max_bad)

    def fill(self) -> None:
        """Decode the images unless the cache has them, with a progress bar.

        ImageError: there is no space in the cache.
        """
        if self._is_complete():
            return
        try:
            self._file("lock").parent.mkdir(parents=True, exist_ok=True)
            with self._file("lock").open("w") as file:
                is_alone = lock(file.fileno(), wait=True)
                if not self._is_complete():  # by now, through another process
                    self._decode_all("part" if is_alone else f"part-{secrets.token_hex(8)}")
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise self._no_space("the disk filled up") from error

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the pixels: another process maps the file itself."""
        return {name: value for name, value in self.__dict__.items() if name != "_pixels"}

    @functools.cached_property
    def _pixels(self) -> NDArray[np.uint8]:
        self.fill()
        shape = (len(self), 3, self.size, self.size)
        return np.memmap(self._file("pixels"), np.uint8, "r", shape=shape)

    @property
    def _bytes(self) -> int:
        return 3 * self.size**2

    def _file(self, ending: str) -> Path:
        return self._place.with_name(f"{self._place.name}.{ending}")

    def _is_complete(self) -> bool:
        with contextlib.suppress(FileNotFoundError):
            sizes = [self._file(ending).stat().st_size for ending in ("json", "pixels")]
            return sizes[1] == len(self) * self._bytes
        return False

    def _decode_all(self, ending: str) -> None:
        """Write the images in their order, and go on behind those that are there."""
        part, problems = self._file(ending), self._file(f"{ending}-problems")
        done = part.stat().st_size // self._bytes if part.exists() else 0
        free = shutil.disk_usage(part.parent).free
        if free < (len(self) - done) * self._bytes:
            raise self._no_space(f"{free / 1e6:.0f} MB are free")
        found = {n: why for n, why in _read_problems(problems) if n < done}
        write_atomically(problems, *map(_line, found.items()))
        with part.open("ab") as pixels, problems.open("ab") as log:
            pixels.truncate(done * self._bytes)  # of one that was being written
            for number, image in self._decode_from(done):
                if isinstance(image, ImageError):
                    found[number] = str(image)
                    log.write(_line((number, str(image))).encode())
                    log.flush()
                    image = np.zeros((3, self.size, self.size), np.uint8)
                pixels.write(image.tobytes())
        flush_to_disk(part)
        reasons = {self.names[number]: why for number, why in found.items()}
        write_atomically(self._file("json"), json.dumps(reasons, ensure_ascii=True))
        os.replace(part, self._file("pixels"))
        problems.unlink()

    def _decode_from(self, first: int) -> Iterator[tuple[int, NDArray[np.uint8] | ImageError]]:
        def decode(number: int) -> NDArray[np.uint8] | ImageError:
            try:
                return decode_image(self.folder / self.names[number], self.size)
            except ImageError as error:
                return error

        numbers = iter(range(first, len(self)))
        bar = tqdm(desc="reading images", total=len(self), initial=first, unit="image")
        # Threads are enough: Pillow decodes and scales without the lock of the interpreter.
        with quiet(), bar, ThreadPoolExecutor(num_cores()) as pool:
            while block := list(itertools.islice(numbers, AT_A_TIME)):
                yield from zip(block, pool.map(decode, block), strict=True)
                bar.update(len(block))

    def _no_space(self, found: str) -> ImageError:
        needed = max(1, round(len(self) * self._bytes / 1e6))
        return ImageError(
            f"no space for {number_of(len(self), 'image')} in {self._place.parent}: they take"
            f" {needed} MB, {found}; free some, set FUSION_CACHE to a folder on another disk, or"
            f" lower data.image_size ({self.size})"
        )


def _state(path: Path) -> tuple[int, int] | None:
    """Return size and time of change of a file; None: it is not there."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_size, state.st_mtime_ns


def _line(problem: tuple[int, str]) -> str:
    return json.dumps(problem) + "\n"


def _read_problems(path: Path) -> Iterator[tuple[int, str]]:
    """Read the problems of an interrupted run; its last line may be cut off."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for line in lines:
        with contextlib.suppress(ValueError):
            number, why = json.loads(line)
            yield number, why
