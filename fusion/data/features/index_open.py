"""Opening the index of a feature store: finding the one that is up to date, else making it."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from fusion.data.features.files import LocalFiles, StoreFiles, lock
from fusion.data.features.format import Field, StoreError, decode_piece, encode_fields
from fusion.data.features.index import Index, build_index
from fusion.files import cache_folder, write_atomically

INDEX_VERSION = "1"  # raise it when build_index writes anything else
_LEFT_BEHIND = 3600  # seconds after which a temporary file belongs to nobody


def open_index(files: StoreFiles, fields: Mapping[str, Field], *, keep: bool = True) -> Index:
    """Open the index of a store as it is now; make it if shards were added or removed.

    Any number of processes may do so at once: the file of an index is named after the shards it
    is of, so that whoever comes last replaces it by the same.

    Args:
        files: those of the store.
        fields: those of the store.
        keep: leave an index that had to be made for others: in the store, or in the cache if the
            store is remote or cannot be written to.

    Raises:
        StoreError: the store is remote, its shards cannot be listed, and it has no index.
    """
    shards = files.shards()
    state = _published(files) if shards is None else _state(shards, fields)
    folders = [_cache(files)]
    if isinstance(files, LocalFiles):
        folders.insert(0, files.folder / "index")
    for folder in folders:
        index = map_index(folder / f"{state}.safetensors")
        if index and not (shards and _mended(files, fields, index)):
            if folder != folders[-1]:
                _publish(folder, state)
            return index
    content = None if isinstance(files, LocalFiles) else _download(files, state)
    if content is None or (shards and _mended(files, fields, Index(content))):
        if shards is None:
            raise StoreError(
                f"{files.location} can neither be listed nor has it an index; open it once where"
                " it lies in a folder, and copy it again"
            )
        content = build_index(zip(shards, files.pieces(shards), strict=True), fields)
    return _keep(content, state, folders) if keep else Index(content)


def map_index(path: Path) -> Index | None:
    """Map the file of an index into memory; None: there is none, or it is damaged."""
    try:
        with path.open("rb") as file:
            # The map holds the file and so its lock; see _remove_unused.
            with contextlib.suppress(BlockingIOError):
                lock(file.fileno(), shared=True)
            return Index(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), path)
    except (OSError, ValueError):  # mmap refuses an empty file
        return None


def _state(shards: Iterable[str], fields: Mapping[str, Field]) -> str:
    """Name what a store holds; the names of shards depend on their content."""
    identity = "\n".join([INDEX_VERSION, encode_fields(fields), *shards])
    return hashlib.sha256(identity.encode()).hexdigest()[:32]


def _cache(files: StoreFiles) -> Path:
    place = files.location
    if isinstance(files, LocalFiles):
        place = str(files.folder.resolve())
    return cache_folder() / "stores" / hashlib.sha256(place.encode()).hexdigest()[:16]


def _published(files: StoreFiles) -> str:
    try:
        return files.content("index/current").decode().strip()
    except Exception:  # each kind of storage has its own
        return "none"


def _mended(files: StoreFiles, fields: Mapping[str, Field], index: Index) -> bool:
    """Tell whether an index piece that was damaged is whole by now, say from a backup."""
    for name, content in zip(index.damaged, files.pieces(list(index.damaged)), strict=True):
        with contextlib.suppress(StoreError):
            decode_piece(name, content, fields)
            return True
    return False


def _publish(folder: Path, state: str) -> None:
    """Say which index is the newest, for those who cannot list the shards."""
    current = folder / "current"
    with contextlib.suppress(OSError):  # it is for others; we can do without
        if not current.exists() or current.read_text() != state:
            write_atomically(current, state)


def _download(files: StoreFiles, state: str) -> bytes | None:
    try:
        content = files.content(f"index/{state}.safetensors")
        Index(content)  # whole?
    except Exception:  # not there, damaged, or the storage's own kinds: make it instead
        return None
    return content


def _keep(content: bytes, state: str, folders: list[Path]) -> Index:
    for folder in folders:
        path = folder / f"{state}.safetensors"
        try:
            write_atomically(path, content)
        except OSError:
            if folder == folders[-1]:
                raise
            continue  # a store that cannot be written to
        if folder != folders[-1]:
            _publish(folder, state)
        _remove_unused(path)
        break
    return map_index(path) or Index(content)


def _remove_unused(kept: Path) -> None:
    """Remove older indices that nobody has open.

    On network file systems a process dies that reads a mapped file which another machine deleted.
    """
    for path in kept.parent.glob("*.safetensors*"):
        with contextlib.suppress(OSError):  # among them: somebody has locked it
            if path.suffix != ".safetensors":
                if time.time() - path.stat().st_mtime > _LEFT_BEHIND:
                    path.unlink()
            elif path != kept:
                with path.open("r+b") as file:
                    if lock(file.fileno()):
                        path.unlink()
