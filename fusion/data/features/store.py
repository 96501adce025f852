"""The feature store: features of up to millions of videos, read a few rows at a time.

A video has one matrix (rows, width) of each field, such as "2d", "3d" and a spectrogram; rows are
in the order of time. A clip needs some 20 of the thousands of rows of a video; only these are
read. A store is a folder, or the same behind a URL:

store.json                    ``{"format": 1, "fields": {"2d": {"width": 2048, "per_second": 1.0,
                              "dtype": "float16"}, …}, "sha256": of this JSON without it, with an
                              indent of two spaces and a line break at the end}``; never changes.
shards/NAME.safetensors       an ordinary safetensors file of float16 matrices, named VIDEO/FIELD.
shards/NAME.json              its index piece: ``{"format": 1, "size": bytes of the shard,
                              "sha256": of the shard, "videos": {VIDEO: {"facts": {…}, "fields":
                              {FIELD: [rows, offset in the file]}}}}``, in the order of the bytes.
index/STATE.safetensors       the index of all shards, see :func:`.features.index.build_index`;
index/current                 STATE of the newest index, for servers that cannot list the shards.

* A shard exists when its index piece does, which is written last. Existing files never change: a
  store grows by whole shards, and a kill at any time loses only the shard that is not yet written.
* NAME is WRITER-COUNT-DIGEST. Each writer has its own name, so writers need not communicate. DIGEST
  is the beginning of the index piece's SHA-256: one name never has two contents, and STATE, a hash
  of the names of the shards, tells whether an index is up to date.
* If two shards have a video, the first shard by name counts.
* To repair a store, remove a damaged shard and its index piece, and add its videos again. The
  folder ``index`` can always be deleted.
* To publish a store, open it once (which makes the index) and copy the folder.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fusion.data.features import format as codec
from fusion.data.features.files import StoreFiles, open_files
from fusion.data.features.format import Field, IndexPiece, StoreError
from fusion.data.features.index import map_index, open_index
from fusion.data.features.problems import warn
from fusion.data.untrusted.reading import decode_json
from fusion.files import missing_folder

logger = logging.getLogger(__name__)

RECIPE = "extraction.json"  # in a store of fusion extract
ROOT = "root.txt"  # in such a store: the folder that the names of its videos are relative to
_BLOCK = 8 * 2**20  # bytes that find_damaged_shards reads at a time


class FeatureStore:
    """Read a feature store, as it is when it is opened.

    It can be used after a fork and sent to other processes; all share the index in memory.

    Args:
        location: a folder; or a URL, such as ``s3://bucket/store``, that fsspec can read. The
            index of a remote store is kept in the cache.

    Attributes:
        fields: what a video can have.
        videos: the names of all videos, sorted by Unicode; not in memory.

    Raises:
        StoreError: there is no store, or it cannot be opened. Videos whose index piece is damaged
            are not in the store: a warning says so.
    """

    def __init__(self, location: str | Path) -> None:
        self._open(str(location))
        for problem in self.index.damaged.values():
            logger.warning("%s; %s", self.location, problem)

    def _open(self, location: str, index: Path | None = None) -> None:
        self._files, self._process = open_files(location), os.getpid()
        self.location = self._files.location
        try:
            description = self._files.content("store.json")
        except (FileNotFoundError, NotADirectoryError):
            raise StoreError(
                f"{self.location} is no feature store: it has no store.json"
                f"{missing_folder(f'{self.location}/store.json')}; check the path"
            ) from None
        self.fields: Mapping[str, Field] = codec.decode_fields(
            description, f"{self.location}/store.json"
        )
        mapped = map_index(index) if index else None
        self.index = mapped or open_index(self._files, self.fields)
        self.videos: Sequence[str] = self.index.videos
        self._numbers = {name: number for number, name in enumerate(self.fields)}
        self._found = ("", self.index.videos.find(""))  # the last video and its row in the index

    def __getstate__(self) -> dict[str, Any]:
        return {"location": self.location, "index": self.index.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._open(state["location"], state["index"])

    def __len__(self) -> int:
        return len(self.videos)

    def __contains__(self, video: object) -> bool:
        return video in self.videos

    @property
    def files(self) -> StoreFiles:
        """The files as this process opened them: connections do not survive a fork."""
        if self._process != os.getpid():
            self._files, self._process = open_files(self.location), os.getpid()
        return self._files

    def rows(self, video: str, field: str) -> int:
        """Return how many rows a video has of a field, 0 if it has none; raises as :meth:`read`."""
        return self._place(video, field)[1]

    def read(self, video: str, field: str, first: int = 0, last: int | None = None) -> Tensor:
        """Read the rows from ``first`` to before ``last`` (None: to the end), and no other byte.

        Returns:
            (rows, width) float16, which may be written to; rows outside of the video are left out.

        Raises:
            StoreError: the video or the field is not there, or its shard is missing or damaged.
        """
        shard, rows, offset = self._place(video, field)
        first = min(max(first, 0), rows)
        last = rows if last is None else min(max(last, first), rows)
        width, row = self.fields[field].width, self.fields[field].row_bytes
        if first == last:
            return torch.empty(0, width, dtype=torch.float16)
        name, size = self.index.shards[shard], self.index.sizes[shard]
        data = self.files.read(name, size, offset + first * row, (last - first) * row)
        return torch.frombuffer(data, dtype=torch.float16).view(last - first, width)

    def facts(self, video: str) -> dict[str, Any]:
        """Return the notes about a video; raises as :meth:`read`."""
        return self.index.facts(self._find(video))

    def recipe(self) -> dict[str, Any] | None:
        """Return how fusion extract made the features; None if another program made them."""
        try:
            found = decode_json(self.files.content(RECIPE))
        except (FileNotFoundError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def root(self) -> Path | None:
        """Return the folder that the names of the videos are relative to; None: not known."""
        try:
            return Path(self.files.content(ROOT).decode().strip())
        except (FileNotFoundError, ValueError):
            return None

    def describe(self) -> str:
        """Name the networks that made the features of the first video, and the maker's warning."""
        facts, made = self._first_facts(), Path(self.location).name
        if isinstance(networks := facts.get("networks"), Mapping):
            made = f"{' and '.join(map(str, networks.values())) or 'no network'} ({made})"
        if warning := facts.get("warning"):
            made += f" [WARNING: {warning}]"
        return f"features of {made}"

    def _first_facts(self) -> Mapping[str, Any]:
        return self.facts(self.videos[0]) if len(self) else {}

    def _place(self, video: str, field: str) -> tuple[int, int, int]:
        row = self._find(video)
        if field not in self._numbers:
            raise StoreError(
                f"{self.location} has no field {field!r}; choose from {list(self.fields)}"
            )
        return self.index.place(row, self._numbers[field])

    def _find(self, video: str) -> int:
        known, row = self._found
        if video != known:
            row = self.index.videos.find(video)
            if row >= 0:
                self.index.verify(row)
            self._found = (video, row)
        if row < 0:
            damaged = len(self.index.damaged)
            hint = f" ({damaged} of its index pieces are damaged)" if damaged else ""
            raise StoreError(f"{self.location} has no video {video!r}{hint}; see its .videos")
        return row


def open_store(location: str | Path) -> FeatureStore:
    """Open a feature store; show the maker's warning, such as of random weights, in a frame."""
    store = FeatureStore(location)
    if warning := store._first_facts().get("warning"):
        frame = "!" * 100
        warn(f"{frame}\n!!! {store.location}: {warning}\n{frame}")
    return store


def open_fields(places: Mapping[str, str]) -> dict[str, FeatureStore]:
    """Open the store of each field; ValueError: one has no such field."""
    stores = {name: open_store(place) for name, place in places.items()}
    for name, store in stores.items():
        if name not in store.fields:
            has = ", ".join(store.fields)
            raise ValueError(f"data.fields.{name}: {store.location} has no such field, but {has}")
    return stores


class DamagedShard(NamedTuple):
    """A damaged shard, what is wrong and what to do, and its videos as far as known."""

    name: str
    problem: str
    videos: list[str]


def find_damaged_shards(
    store: FeatureStore, progress: Callable[[int], object] = lambda size: None
) -> list[DamagedShard]:
    """Read all shards and compare them with their index pieces.

    ``progress`` gets the number of bytes read since the last call, of ``sum(store.index.sizes)``.
    """
    damaged, shards = [], store.index.shards
    for name, content in zip(shards, store.files.pieces(shards), strict=True):
        piece = None
        try:
            piece = codec.decode_piece(name, content, store.fields)
            _check_shard(store, name, piece, progress)
        except StoreError as error:
            videos = piece.videos if piece else _videos_in(store, name)
            damaged.append(DamagedShard(name, str(error), sorted(videos)))
    return damaged


def _check_shard(
    store: FeatureStore, name: str, piece: IndexPiece, progress: Callable[[int], object]
) -> None:
    read = functools.partial(store.files.read, name, piece.size)
    digest = hashlib.sha256()
    for start in range(0, piece.size, _BLOCK):
        block = read(start, min(_BLOCK, piece.size - start))
        digest.update(block)
        progress(len(block))
    shard = f"{store.location}: {name}.safetensors"
    if digest.hexdigest() != piece.sha256:
        raise StoreError(
            f"{shard} is damaged: its SHA-256 is not that of its index piece; {codec.MEND}"
        )
    described = {
        f"{video}/{field}": ((rows, store.fields[field].width), offset)
        for video, entry in piece.videos.items()
        for field, (rows, offset) in entry["fields"].items()
    }
    try:
        _, tensors = codec.decode_header(read)
    except ValueError as error:
        raise StoreError(f"{shard} is not a safetensors file ({error}); {codec.MEND}") from None
    if described != {tensor: (shape, begin) for tensor, (shape, begin, _) in tensors.items()}:
        raise StoreError(f"{shard} does not hold what its index piece says; {codec.MEND}")


def _videos_in(store: FeatureStore, name: str) -> set[str]:
    try:
        _, tensors = codec.decode_header(functools.partial(store.files.read, name, None))
        return {tensor.rpartition("/")[0] for tensor in tensors}
    except ValueError:
        return set()
