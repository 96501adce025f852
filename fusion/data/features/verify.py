"""Reading a whole feature store again, to find what is damaged."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Collection, Mapping

from fusion.data.features.files import StoreFiles
from fusion.data.features.format import (
    MEND,
    Field,
    Piece,
    StoreError,
    decode_header,
    decode_piece,
)
from fusion.data.features.index import Index

_BLOCK = 8 * 2**20  # bytes read at a time

Progress = Callable[[int], object]


@dataclasses.dataclass(frozen=True)
class DamagedShard:
    """A shard that cannot be trusted.

    Attributes:
        name: of the shard.
        problem: what is wrong and what to do.
        videos: that are in it, sorted, as far as it can be told.
    """

    name: str
    problem: str
    videos: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.problem} (videos: {', '.join(self.videos) or 'unknown'})"


def verify(
    files: StoreFiles, index: Index, fields: Mapping[str, Field], progress: Progress | None = None
) -> list[DamagedShard]:
    """Compare all shards with their index pieces; see :meth:`.store.FeatureStore.verify`."""
    report = []
    for name, content in zip(index.shards, files.pieces(index.shards), strict=True):
        videos: Collection[str] | None = None
        try:
            piece = decode_piece(name, content, fields)
            videos = piece.videos
            _verify_shard(files, name, piece, fields, progress)
        except StoreError as error:
            if videos is None:
                videos = _videos_in(files, name)
            report.append(DamagedShard(name, str(error), tuple(sorted(videos))))
    return report


def _verify_shard(
    files: StoreFiles,
    name: str,
    piece: Piece,
    fields: Mapping[str, Field],
    progress: Progress | None,
) -> None:
    digest = hashlib.sha256()
    for start in range(0, piece.size, _BLOCK):
        block = files.read(name, piece.size, start, min(_BLOCK, piece.size - start))
        digest.update(block)
        if progress:
            progress(len(block))
    shard = f"{files.location}: {name}.safetensors"
    if digest.hexdigest() != piece.sha256:
        raise StoreError(f"{shard} is damaged: its SHA-256 is not that of its index piece; {MEND}")
    described = {
        f"{video}/{field}": ((rows, fields[field].width), offset)
        for video, entry in piece.videos.items()
        for field, (rows, offset) in entry["fields"].items()
    }
    try:
        _, tensors = decode_header(lambda at, length: files.read(name, piece.size, at, length))
    except ValueError as error:
        raise StoreError(f"{shard} is not a safetensors file ({error}); {MEND}") from None
    if described != {tensor: (shape, begin) for tensor, (shape, begin, _) in tensors.items()}:
        raise StoreError(f"{shard} does not hold what its index piece says; {MEND}")


def _videos_in(files: StoreFiles, name: str) -> set[str]:
    """Name the videos of a shard without its index piece."""
    try:
        _, tensors = decode_header(lambda at, length: files.read(name, None, at, length))
    except ValueError:
        return set()
    return {tensor.rpartition("/")[0] for tensor in tensors}
