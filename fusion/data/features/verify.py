"""Reading a whole feature store again, to find what is damaged."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Collection

from fusion.data.features.format import MEND, Piece, StoreError, decode_header, decode_piece
from fusion.data.features.store import FeatureStore

_BLOCK = 8 * 2**20  # bytes read at a time


@dataclasses.dataclass(frozen=True)
class DamagedShard:
    """A shard that cannot be trusted.

    Attributes:
        name: of the shard.
        problem: what is wrong and what to do.
        videos: names of its videos, sorted, as far as they are known.
    """

    name: str
    problem: str
    videos: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.problem} (videos: {', '.join(self.videos) or 'unknown'})"


def find_damaged_shards(
    store: FeatureStore, progress: Callable[[int], object] = lambda size: None
) -> list[DamagedShard]:
    """Read all shards and compare them with their index pieces.

    Args:
        store: the feature store.
        progress: called with the number of bytes read since the last call, of
            ``sum(store.index.sizes)``; for example ``tqdm(...).update``.

    Returns:
        The shards that are damaged or missing.
    """
    damaged, shards = [], store.index.shards
    for name, content in zip(shards, store.files.pieces(shards), strict=True):
        videos: Collection[str] | None = None
        try:
            piece = decode_piece(name, content, store.fields)
            videos = piece.videos
            _check_shard(store, name, piece, progress)
        except StoreError as error:
            if videos is None:
                videos = _videos_in(store, name)
            damaged.append(DamagedShard(name, str(error), tuple(sorted(videos))))
    return damaged


def _check_shard(
    store: FeatureStore, name: str, piece: Piece, progress: Callable[[int], object]
) -> None:
    digest = hashlib.sha256()
    for start in range(0, piece.size, _BLOCK):
        block = store.files.read(name, piece.size, start, min(_BLOCK, piece.size - start))
        digest.update(block)
        progress(len(block))
    shard = f"{store.location}: {name}.safetensors"
    if digest.hexdigest() != piece.sha256:
        raise StoreError(f"{shard} is damaged: its SHA-256 is not that of its index piece; {MEND}")
    described = {
        f"{video}/{field}": ((rows, store.fields[field].width), offset)
        for video, entry in piece.videos.items()
        for field, (rows, offset) in entry["fields"].items()
    }
    try:
        tensors = _tensors_in(store, name, piece.size)
    except ValueError as error:
        raise StoreError(f"{shard} is not a safetensors file ({error}); {MEND}") from None
    if described != {tensor: (shape, begin) for tensor, (shape, begin, _) in tensors.items()}:
        raise StoreError(f"{shard} does not hold what its index piece says; {MEND}")


def _videos_in(store: FeatureStore, name: str) -> set[str]:
    """Name the videos of a shard without its index piece."""
    try:
        return {tensor.rpartition("/")[0] for tensor in _tensors_in(store, name, None)}
    except ValueError:
        return set()


def _tensors_in(
    store: FeatureStore, name: str, size: int | None
) -> dict[str, tuple[tuple[int, ...], int, int]]:
    return decode_header(lambda at, length: store.files.read(name, size, at, length))[1]
