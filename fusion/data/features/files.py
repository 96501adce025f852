"""Where the files of a feature store lie: in a folder, or behind a URL."""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from fusion.data.features.format import MEND, SHARD_NAME, StoreError
from fusion.data.untrusted.reading import read_bytes
from fusion.files import PASSING, patiently

MOST_CONTENT = 2**28  # bytes of a file that is read whole: descriptions and index pieces
MOST_INDEX = 2**34  # bytes of the index of a remote store; that of 10 million videos has 2**30
MAX_OPEN = 256  # shards at a time and process; 1,024 files is a common limit


class LocalFiles:
    """The files of a store in a folder."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser().absolute()  # files are opened later
        self.location = str(self.folder)
        opening = functools.partial(_open_shard, self.folder / "shards")
        self._open = functools.lru_cache(MAX_OPEN)(opening)

    def content(self, name: str) -> bytes:
        """Read a whole file below the store's folder; FileNotFoundError: there is none."""
        try:
            return patiently(lambda: read_bytes(self.folder / name, MOST_CONTENT))
        except ValueError as error:
            raise StoreError(f"{self.folder / name}: {error}") from None

    def pieces(self, shards: Sequence[str]) -> Iterator[bytes]:
        """Read the index pieces of shards; empty where one is missing."""
        for shard in shards:
            try:
                yield self.content(f"shards/{shard}.json")
            except FileNotFoundError:
                yield b""

    def shards(self) -> list[str] | None:
        """Name the shards that have an index piece, sorted; None: they cannot be listed."""
        try:
            return _shard_names(os.listdir(self.folder / "shards"))
        except FileNotFoundError:
            return []

    def read(self, shard: str, size: int | None, start: int, length: int) -> bytearray:
        """Read ``length`` bytes of a shard that has ``size`` bytes, or any number if None."""
        try:
            return patiently(lambda: self._read(shard, size, start, length))
        except OSError as error:
            raise StoreError(
                f"{self.folder / 'shards' / shard}.safetensors cannot be read at byte {start}"
                f" ({error.strerror}); check the disk, or the connection to it"
            ) from None

    def _read(self, shard: str, size: int | None, start: int, length: int) -> bytearray:
        file = self._open(shard, size)
        data = bytearray()
        try:
            while len(data) < length:  # one call reads at most 2 GiB
                place, rest = start + len(data), length - len(data)
                if hasattr(os, "pread"):
                    more = os.pread(file.fileno(), rest, place)
                else:  # Windows, where no process inherits the file by a fork
                    file.seek(place)
                    more = file.read(rest)
                if not more:
                    raise StoreError(f"{file.name} ends at byte {place}; {MEND}")
                data += more
        except OSError:
            self._open.cache_clear()  # a file of a network may have to be opened anew
            raise
        return data


class RemoteFiles:
    """The files of a store behind a URL, read by fsspec; the methods are those of LocalFiles."""

    def __init__(self, url: str) -> None:
        self.location = url.rstrip("/")
        try:
            from fsspec.core import url_to_fs  # type: ignore[import-untyped]

            self._files, root = url_to_fs(self.location)
        except (ImportError, ValueError) as error:
            raise StoreError(
                f"{self.location} cannot be opened: {error}; install what it needs, or copy the"
                " store into a folder"
            ) from None
        self._root = root.rstrip("/")

    def content(self, name: str, **part: int) -> bytes:
        """Read a whole file, or its bytes from ``start`` to ``end``."""
        path = f"{self._root}/{name}"
        try:
            if not part:
                self._check_size(path)
            return self._files.cat_file(path, **part)
        except (FileNotFoundError, StoreError):
            raise
        except OSError as error:
            if part and error.errno in PASSING:
                raise
            raise self._unreadable(name, error) from None
        except Exception as error:  # each kind of storage has its own
            raise self._unreadable(name, error) from None

    def pieces(self, shards: Sequence[str]) -> Iterator[bytes]:
        """Read the index pieces of shards, many at a time."""
        for begin in range(0, len(shards), MAX_OPEN):
            paths = [f"{self._root}/shards/{s}.json" for s in shards[begin : begin + MAX_OPEN]]
            found = self._files.cat(paths, on_error="return")
            for path in paths:
                content = found.get(path, FileNotFoundError())
                if isinstance(content, Exception):
                    if not isinstance(content, FileNotFoundError):
                        raise self._unreadable(path, content)
                    content = b""
                yield content

    def shards(self) -> list[str] | None:
        """Name the shards that have an index piece."""
        self._files.invalidate_cache()
        try:
            paths = self._files.ls(f"{self._root}/shards", detail=False)
        except Exception:  # plain web servers cannot list, and say so in many ways
            return None
        return _shard_names(path.rpartition("/")[2] for path in paths) or None

    def read(self, shard: str, size: int | None, start: int, length: int) -> bytearray:
        """Read a part of a shard."""
        try:
            part = {"start": start, "end": start + length}
            data = patiently(lambda: self.content(f"shards/{shard}.safetensors", **part))
        except FileNotFoundError:
            raise StoreError(f"{self.location}: {shard}.safetensors is missing; {MEND}") from None
        except OSError as error:
            raise self._unreadable(f"{shard}.safetensors", error) from None
        if len(data) != length:
            raise StoreError(
                f"{self.location}: {shard}.safetensors gave {len(data)} bytes instead of {length}"
                f" from byte {start}; either it is damaged, or the server cannot send"
                " parts of files: then copy the store into a folder"
            )
        return bytearray(data)

    def _check_size(self, path: str) -> None:
        """Refuse a file that would fill the memory, as far as its size is known beforehand."""
        most = MOST_INDEX if "/index/" in path else MOST_CONTENT
        size = self._files.size(path)
        if size is not None and size > most:
            raise StoreError(f"{self.location}: {path} has {size} bytes, more than the {most} read")

    def _unreadable(self, path: str, error: Exception) -> StoreError:
        name, reason = path.rpartition("/")[2], " ".join(str(error).split()) or type(error).__name__
        return StoreError(
            f"{self.location}: {name} cannot be read ({reason}); check the connection"
        )


StoreFiles = LocalFiles | RemoteFiles


def open_files(location: str | Path) -> StoreFiles:
    """Open the files of a store in a folder, or behind a URL that fsspec can read."""
    return RemoteFiles(str(location)) if "://" in str(location) else LocalFiles(location)


class _Shard(io.FileIO):
    """An open shard. It closes with its last reader, which may outlive its place in the cache."""

    def __del__(self) -> None:
        self.close()


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # of a pipe nobody may ever write


def _open_shard(folder: Path, name: str, size: int | None) -> _Shard:
    path = folder / f"{name}.safetensors"
    try:
        file = _Shard(path, opener=_without_waiting)
    except FileNotFoundError:
        raise StoreError(f"{path} is missing; {MEND}") from None
    except OSError as error:
        if error.errno in PASSING:
            raise
        raise StoreError(f"{path} cannot be opened ({error.strerror}); check it") from None
    found = os.fstat(file.fileno()).st_size
    if size is not None and found != size:
        raise StoreError(f"{path} has {found} bytes instead of {size}; {MEND}")
    # Without this, the kernel takes neighbouring clips of a video for a long read, and reads ahead:
    # 4.4 times the bytes used (10 neighbouring clips of each of 50 videos); with it, 1.02 times.
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
    return file


def _shard_names(files: Iterable[str]) -> list[str]:
    pieces = (file.removesuffix(".json") for file in files if file.endswith(".json"))
    return sorted(piece for piece in pieces if SHARD_NAME.fullmatch(piece))
