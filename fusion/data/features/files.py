"""Where the files of a feature store lie: in a folder, or behind a URL."""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from fusion.data.features.format import MEND, SHARD_NAME, StoreError

MAX_OPEN = 256  # shards at a time and process; 1,024 files is a common limit


class LocalFiles:
    """The files of a store in a folder."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser().absolute()  # files are opened later
        self.location = str(self.folder)
        opening = functools.partial(_open_shard, self.folder / "shards")
        self._open: Callable[[str, int | None], _Shard] = functools.lru_cache(MAX_OPEN)(opening)

    def content(self, name: str) -> bytes:
        """Read a whole file below the store's folder; FileNotFoundError: there is none."""
        return (self.folder / name).read_bytes()

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
        except OSError as error:
            raise StoreError(
                f"{file.name} cannot be read at byte {start} ({error.strerror}); {MEND}"
            ) from None
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
        try:
            return self._files.cat_file(f"{self._root}/{name}", **part)
        except FileNotFoundError:
            raise
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
            data = self.content(f"shards/{shard}.safetensors", start=start, end=start + length)
        except FileNotFoundError:
            raise StoreError(f"{self.location}: {shard}.safetensors is missing; {MEND}") from None
        if len(data) != length:
            raise StoreError(
                f"{self.location}: {shard}.safetensors gave {len(data)} bytes instead of {length}"
                f" from byte {start}; either it is damaged, or the server cannot send"
                " parts of files: then copy the store into a folder"
            )
        return bytearray(data)

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


def _open_shard(folder: Path, name: str, size: int | None) -> _Shard:
    path = folder / f"{name}.safetensors"
    try:
        file = _Shard(path)
    except FileNotFoundError:
        raise StoreError(f"{path} is missing; {MEND}") from None
    except OSError as error:
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
