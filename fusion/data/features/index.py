"""The index of a feature store: which video lies where, in one file that processes share."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import mmap
import re
import time
import zlib
from array import array
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion.data.features import format as codec
from fusion.data.features.files import LocalFiles, StoreFiles
from fusion.data.features.format import Field, StoreError
from fusion.data.features.name_index import NameIndex, hash_name, sort_hashes
from fusion.data.untrusted.reading import decode_json, open_file
from fusion.files import cache_folder, lock, write_atomically

INDEX_VERSION = "3"  # raise it when build_index writes anything else
_LEFT_BEHIND = 3600  # seconds after which a temporary file belongs to no running process
# Of the parts of an index; those of others are <i8
_DTYPES = {"names": "u1", "facts": "u1", "shards": "u1", "name_hashes": "<u8", "checks": "<u4"}
_OWN_FILE = re.compile(r"[0-9a-f]{32}\.safetensors(\.new-.*)?")


class Index:
    """Finds the rows of a video in what :func:`build_index` returned, or in older versions of that.

    ``path`` is the file that it is mapped from, ``videos`` are the names, sorted by Unicode.
    ``damaged`` has the shards whose index piece is damaged, and how; in ``sizes`` (bytes of each
    shard) they have 0, and their videos are not in the index. StoreError: the index is damaged,
    or names a shard that is no file of a store: it may come from anybody.
    """

    def __init__(self, data: bytes | mmap.mmap, path: Path | None = None) -> None:
        self.path = path

        def error(what: str) -> StoreError:
            return StoreError(f"{path or 'the store'} has a damaged index ({what}); delete it")

        try:
            metadata, tensors = codec.decode_header(lambda start, size: data[start : start + size])
            if max(end for _, _, end in tensors.values()) != len(data):
                raise ValueError("it is cut off")
            content = np.frombuffer(data, np.uint8)
            parts: dict[str, NDArray[Any]] = {
                name: content[begin:end].view(_DTYPES.get(name, "<i8"))
                for name, (_, begin, end) in tensors.items()
            }
            said: dict[str, str] = decode_json(metadata["damaged"])
            self.damaged = {str(shard): str(problem) for shard, problem in said.items()}
            self.shards = parts["shards"].tobytes().decode().split()
            if odd := [name for name in self.shards if not codec.SHARD_NAME.fullmatch(name)]:
                raise ValueError(f"{odd[0][:80]!r} is no name of a shard")
            self.sizes: list[int] = parts["sizes"].tolist()
            self._checks = parts["checks"] if "version" in metadata else parts.get("checks")
            self._places = parts["places"].reshape(tensors["places"][0])
            self._facts, self._facts_ends = parts["facts"], parts["facts_ends"]
            names, ends = parts["names"], parts["name_ends"]
            if "name_hashes" not in parts:  # version 1
                text = names.tobytes()
                parts["name_hashes"], parts["name_rows"] = sort_hashes(
                    hash_name(text[a:b]) for a, b in itertools.pairwise(ends.tolist())
                )
            self.videos = NameIndex(names, ends, parts["name_hashes"], parts["name_rows"], error)
            self._error = error
            lengths = {len(self._places), len(self._facts_ends) - 1}
            lengths |= set() if self._checks is None else {len(self._checks)}
            if lengths != {len(self.videos)} or len(self.shards) != len(self.sizes):
                raise ValueError("its parts do not fit together")
        except StoreError:
            raise
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as problem:
            raise error(str(problem)) from None

    def verify(self, row: int) -> None:
        """Compare all that the index says about a video with its checksum; StoreError: it changed.

        Older indices have no checksums.
        """
        if self._checks is None:
            return
        shard = int(self._places[row, 0])
        begin, end = self._facts_ends[row : row + 2].tolist()
        if 0 <= shard < len(self.shards) and 0 <= begin <= end:
            facts = self._facts[begin:end].tobytes()
            name, shards = self.videos.encoded(row), (self.shards[shard], self.sizes[shard])
            if _checksum(name, *shards, self._places[row, 1:], facts) == int(self._checks[row]):
                return
        raise self._error(f"what it says about {self.videos[row]!r} has changed")

    def place(self, row: int, field: int) -> tuple[int, int, int]:
        """Return where a video is: the number of its shard, its rows of a field, their offset."""
        rows, offset = self._places[row, 1 + 2 * field : 3 + 2 * field].tolist()
        return int(self._places[row, 0]), rows, offset

    def facts(self, row: int) -> dict[str, Any]:
        """Return what was noted about a video."""
        begin, end = self._facts_ends[row : row + 2].tolist()
        return decode_json(self._facts[begin:end].tobytes() or b"{}")


def build_index(pieces: Iterable[tuple[str, bytes]], fields: Mapping[str, Field]) -> bytes:
    """Make an index of the names of the shards and their index pieces, sorted.

    Returns:
        A safetensors file. ``places`` (N, 1 + 2 S) has for each of N videos its shard and for each
        of S fields the number of rows and the offset; ``sizes`` the bytes of each shard; ``names``,
        ``name_ends``, ``name_hashes`` and ``name_rows`` are a :class:`.name_index.NameIndex`;
        ``facts`` of each video begin and end at ``facts_ends`` (N + 1,), as JSON; ``shards`` are
        their names; ``checks`` (N,) uint32 are of all that is said about a video. All texts are
        UTF-8, the hashes uint64, all other numbers int64.
    """
    names: list[bytes] = []
    facts: list[bytes] = []
    places, sizes, shards, damaged = array("q"), array("q"), [], {}
    for shard, content in pieces:
        shards.append(shard)
        try:
            piece = codec.decode_piece(shard, content, fields)
        except StoreError as error:
            damaged[shard] = str(error)
            sizes.append(0)
            continue
        for video, entry in piece.videos.items():
            names.append(video.encode())
            facts.append(json.dumps(entry["facts"]).encode() if entry["facts"] else b"")
            places.append(len(sizes))
            for field in fields:
                places.extend(entry["fields"].get(field, (0, 0)))
        sizes.append(piece.size)
    first: dict[bytes, int] = {}
    for at, name in enumerate(names):
        first.setdefault(name, at)  # if two shards have a video, the first one counts
    names = sorted(first)
    order = [first[name] for name in names]
    facts = [facts[at] for at in order]
    hashes, rows = sort_hashes(map(hash_name, names))
    table = np.array(places, np.int64).reshape(-1, 1 + 2 * len(fields))[order]
    checks = [
        _checksum(name, shards[row[0]], sizes[row[0]], row[1:], fact)
        for name, row, fact in zip(names, table, facts, strict=True)
    ]
    tensors: dict[str, np.ndarray] = {
        "places": table,
        "sizes": np.array(sizes, np.int64),
        "name_ends": np.cumsum([0, *map(len, names)], dtype=np.int64),
        "name_hashes": hashes,
        "name_rows": rows,
        "facts_ends": np.cumsum([0, *map(len, facts)], dtype=np.int64),
        "checks": np.array(checks, np.uint32),
        "names": np.frombuffer(b"".join(names), np.uint8),
        "facts": np.frombuffer(b"".join(facts), np.uint8),
        "shards": np.frombuffer("\n".join(shards).encode(), np.uint8),
    }
    header, _ = codec.encode_header(
        tensors, {"version": INDEX_VERSION, "damaged": json.dumps(damaged)}
    )
    return b"".join([header, *(tensor.tobytes() for tensor in tensors.values())])


def _checksum(name: bytes, shard: str, size: int, places: NDArray[np.int64], facts: bytes) -> int:
    said = f"{len(name)} {len(facts)} {shard} {size} ".encode()
    return zlib.crc32(b"".join([said, name, places.tobytes(), facts]))


def open_index(files: StoreFiles, fields: Mapping[str, Field], *, keep: bool = True) -> Index:
    """Open the index of a store as it is now; make it if shards were added or removed.

    With ``keep``, an index that had to be made is written into the store, or into the cache if the
    store is remote or cannot be written to. Any number of processes may do so at once: the file of
    an index is named after its shards, so the last process replaces it by an equal one. A store may
    come from anybody: nothing is written through a link in it, and of its files none is removed but
    older indices.
    """
    shards = files.shards()
    if shards is None:
        published = _fetch(files, "index/current").decode(errors="replace").strip()
        state = published if re.fullmatch("[0-9a-f]{32}", published) else "none"
    else:  # the names of shards depend on their content
        identity = "\n".join([INDEX_VERSION, codec.identity(fields).decode(), *shards])
        state = hashlib.sha256(identity.encode()).hexdigest()[:32]
    place = str(files.folder.resolve()) if isinstance(files, LocalFiles) else files.location
    folder = cache_folder() / "stores" / hashlib.sha256(place.encode()).hexdigest()[:16]
    paths = [folder / f"{state}.safetensors"]
    if isinstance(files, LocalFiles):
        if not (files.folder / "index").is_symlink():
            paths.insert(0, files.folder / "index" / paths[0].name)
    elif not map_index(paths[0]) and (content := _fetch(files, f"index/{paths[0].name}")):
        write_atomically(paths[0], content)
        _remove_unused(paths[0])
    for path in paths:
        index = map_index(path)
        if index and not (shards and _mended(files, fields, index)):
            if path != paths[-1]:
                _publish(path)
            return index
    if shards is None:
        raise StoreError(
            f"{files.location}: its shards cannot be listed, and it has no index; open it once"
            " where it lies in a folder, and copy it again"
        )
    content = build_index(zip(shards, files.pieces(shards), strict=True), fields)
    return _keep(content, paths) if keep else Index(content)


def map_index(path: Path) -> Index | None:
    """Map the file of an index into memory; None: there is none, or it is damaged."""
    try:
        with open_file(path) as file:
            # The map keeps the file open, and so the lock; see _remove_unused.
            with contextlib.suppress(BlockingIOError):
                lock(file.fileno(), shared=True)
            return Index(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), path)
    except (OSError, ValueError):  # mmap refuses an empty file
        return None


def _fetch(files: StoreFiles, name: str) -> bytes:
    try:
        return files.content(name)
    except Exception:  # each kind of storage has its own
        return b""


def _publish(path: Path) -> None:
    """Write which index is the newest, for servers that cannot list the shards."""
    current = path.with_name("current")
    with contextlib.suppress(OSError):  # this process does not need it
        if current.is_symlink() or not current.exists() or _published(current) != path.stem:
            write_atomically(current, path.stem)


def _published(current: Path) -> str:
    with open_file(current) as file:
        return file.read(64).decode("ascii", "replace")


def _mended(files: StoreFiles, fields: Mapping[str, Field], index: Index) -> bool:
    """Return whether a damaged index piece has been repaired since, such as from a backup."""
    for shard, content in zip(index.damaged, files.pieces(list(index.damaged)), strict=True):
        with contextlib.suppress(StoreError):
            codec.decode_piece(shard, content, fields)
            return True
    return False


def _keep(content: bytes, paths: list[Path]) -> Index:
    """Write an index into the first folder that can be written to, and map it."""
    for path in paths:
        try:
            write_atomically(path, content)
        except OSError:
            if path == paths[-1]:
                raise
        else:
            break
    if path != paths[-1]:
        _publish(path)
    _remove_unused(path)
    return map_index(path) or Index(content)


def _remove_unused(kept: Path) -> None:
    """Remove older indices that no process has mapped; on a network its next read would crash."""
    for path in kept.parent.glob("*.safetensors*"):
        if not _OWN_FILE.fullmatch(path.name) or path.is_symlink():
            continue
        with contextlib.suppress(OSError):  # also raised if another process has locked it
            if path.suffix != ".safetensors":
                if time.time() - path.stat().st_mtime > _LEFT_BEHIND:
                    path.unlink()
            elif path != kept:
                with path.open("r+b") as file:
                    if lock(file.fileno()):
                        path.unlink()
