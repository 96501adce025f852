"""Writing a feature store, from as many processes and machines as there are."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from torch import Tensor

from fusion.data.features import format as codec
from fusion.data.features.files import LocalFiles
from fusion.data.features.format import Field, IndexPiece, StoreError
from fusion.data.features.index import open_index
from fusion.files import flush_to_disk, lock, open_lock, unlock, write_atomically, write_once


class StoreWriter:
    """Add videos to a feature store, which is created if it is not there.

        fields = {"2d": Field(2048, 1.0), "spectrogram": Field(40, 100.0)}
        with StoreWriter(folder, fields, name=f"rank{rank}") as writer:
            for video in videos:
                if not writer.done(video):
                    writer.add(video, extract(video), {"duration": 390.0})

    At the end of the ``with`` block the open shard is written; after an exception it is dropped,
    and the shards that were written before stay. Several writers may write to one store at once; a
    video that two of them add is read from the first shard by name.

    Args:
        folder: of the store.
        fields: what a video can have; the same for all writers of a store.
        name: of the writer, different for each writer on all machines; its shards begin with it.
        shard_bytes: a shard is kept in memory and written when it has so many bytes (256 MiB).

    Raises:
        ValueError: the name cannot be part of a file's name, or the fields are impossible.
        StoreError: the store has other fields, or a writer of this name is writing to it.
    """

    def __init__(
        self, folder: str | Path, fields: Mapping[str, Field], name: str, shard_bytes: int = 2**28
    ) -> None:
        if "://" in str(folder):
            raise ValueError(f"cannot write to {folder}; write to a folder and copy it there")
        if not codec.NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot name a writer; use letters, digits, '_', '.', '-'")
        self.folder, self.fields = Path(folder).expanduser().absolute(), dict(fields)
        self.name, self.shard_bytes = name, shard_bytes
        self._shards = self.folder / "shards"
        self._shards.mkdir(parents=True, exist_ok=True)
        description = self.folder / "store.json"
        write_once(description, codec.encode_fields(self.fields))
        found = codec.decode_fields(description.read_bytes(), str(description))
        if found != self.fields:
            raise StoreError(
                f"{self.folder} has the fields {_in_words(found)} and not"
                f" {_in_words(self.fields)}; write to another folder"
            )
        self._lock: IO[bytes] | None = None
        self._count = self._remove_unfinished(locked=self._lock_name())
        self._index = open_index(LocalFiles(self.folder), self.fields, keep=False)
        self._added: set[str] = set()
        self._open: dict[str, tuple[dict[str, np.ndarray], dict[str, Any]]] = {}
        self._open_bytes = 0

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            if error is None:
                self.flush()
        finally:
            self._open.clear()
            if self._lock:
                unlock(self._lock.fileno())
                self._lock.close()
            self._lock = None

    def done(self, video: str) -> bool:
        """Whether a video is there: added here, or by any writer before this one was opened."""
        return video in self._added or video in self._index.videos

    def add(
        self,
        video: str,
        features: Mapping[str, Tensor | np.ndarray],
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Add a video.

        Args:
            video: its name; any text.
            features: (rows, width) of each field that the video has, in the order of time; kept as
                float16. No rows mean the same as leaving the field out.
            facts: notes about the video, such as its duration; must fit into JSON.

        Raises:
            ValueError: the video is there already; or features of an unknown field, of another
                shape, not finite, or too large for float16. Then nothing is added.
            OSError: the shard is full and cannot be written, see :meth:`flush`.
        """
        self._check_video(video)
        matrices = {
            field: codec.encode_features(f"{video}: {field}", self.fields[field], features[field])
            for field in self.fields
            if field in features
        }
        if unknown := [field for field in features if field not in self.fields]:
            raise ValueError(
                f"{video}: the store {self.folder} has no field {unknown[0]!r}; choose from"
                f" {list(self.fields)}"
            )
        try:
            noted = json.dumps(dict(facts or {}), ensure_ascii=False, allow_nan=False)
            noted.encode()
        except (TypeError, ValueError) as problem:
            raise ValueError(
                f"{video}: the facts must fit into JSON ({problem}); use numbers and texts"
            ) from None
        self._open[video] = {name: m for name, m in matrices.items() if len(m)}, json.loads(noted)
        self._added.add(video)
        self._open_bytes += sum(matrix.nbytes for matrix in matrices.values())
        if self._open_bytes >= self.shard_bytes:
            self.flush()

    def flush(self) -> None:
        """Write the open shard, so that readers opened from now on find its videos.

        Raises:
            OSError: it cannot be written; its videos are kept, and ``flush`` can be called again.
        """
        if not self._open:
            return
        tensors = {
            f"{video}/{field}": matrix
            for video, (matrices, _) in self._open.items()
            for field, matrix in matrices.items()
        }
        header, offsets = codec.encode_header(tensors, {"format": "pt"})
        videos = {
            video: {
                "fields": {f: [len(m), offsets[f"{video}/{f}"]] for f, m in matrices.items()},
                "facts": facts,
            }
            for video, (matrices, facts) in self._open.items()
        }
        blocks: list[Any] = [header, *tensors.values()]
        digest = hashlib.sha256()
        for block in blocks:
            digest.update(block)
        size = sum(memoryview(block).nbytes for block in blocks)
        content = codec.encode_piece(IndexPiece(size, digest.hexdigest(), videos))
        name = f"{self.name}-{self._count:05d}-{codec.piece_digest(content)}"
        shard, piece = self._shards / f"{name}.safetensors", self._shards / f"{name}.json"
        try:
            write_atomically(shard, *blocks)
            flush_to_disk(self._shards)  # the shard is on the disk before its index piece
            write_atomically(piece, content)
        except BaseException:
            if not piece.exists():
                shard.unlink(missing_ok=True)
            raise
        self._count += 1
        self._open.clear()
        self._open_bytes = 0

    def _check_video(self, video: str) -> None:
        if self._lock is None:
            raise ValueError(f"{video}: the writer of {self.folder} is closed; open another one")
        if self.done(video):
            raise ValueError(
                f"{video}: already in {self.folder}; call done() first, or remove its shard"
            )
        if not video or video.encode(errors="ignore").decode() != video:
            raise ValueError(f"{video!r} cannot name a video; use a text that UTF-8 can encode")

    def _lock_name(self) -> bool:
        """Lock the name until the writer is closed or dies; False where nothing can be locked."""
        self._lock = open_lock(self._shards / f".{self.name}.lock")
        try:
            return lock(self._lock.fileno())
        except BlockingIOError:
            self._lock.close()
            raise StoreError(
                f"{self.folder}: another writer named {self.name!r} is writing to it; give each"
                " writer its own name"
            ) from None

    def _remove_unfinished(self, locked: bool) -> int:
        """Remove the unfinished files of killed writers of this name; return the next number."""
        own = re.compile(
            re.escape(self.name) + r"-(\d{5,})(-[0-9a-f]{12})?(\.safetensors|\.json)?(\.new-.*)?"
        )
        count = 0
        names = set(os.listdir(self._shards))
        for name in names:
            if not (match := own.fullmatch(name)):
                continue
            number, _, kind, temporary = match.groups()
            unfinished = kind == ".safetensors" and name.removesuffix(kind) + ".json" not in names
            if locked and (temporary or unfinished):
                (self._shards / name).unlink(missing_ok=True)
            else:
                count = max(count, int(number) + 1)
        return count


def _in_words(fields: Mapping[str, Field]) -> str:
    return ", ".join(f"{name} ({f.width} wide, {f.per_second:g}/s)" for name, f in fields.items())
