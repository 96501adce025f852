"""Reading a whole feature store again, to find what is damaged."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from typing import NamedTuple

from fusion.data.features.format import MEND, Piece, StoreError, decode_header, decode_piece
from fusion.data.features.store import FeatureStore

_BLOCK = 8 * 2**20  # bytes read at a time


class DamagedShard(NamedTuple):
    """A shard that cannot be trusted: its name, what to do, and its videos as far as known."""

    name: str
    problem: str
    videos: list[str]


def find_damaged_shards(
    store: FeatureStore, progress: Callable[[int], object] = lambda size: None
) -> list[DamagedShard]:
    """Read all shards and compare them with their index pieces.

    Args:
        store: the feature store.
        progress: called with the number of bytes read since the last call, of
            ``sum(store.index.sizes)``; for example ``tqdm(...).update``.
    """
    damaged, shards = [], store.index.shards
    for name, content in zip(shards, store.files.pieces(shards), strict=True):
        piece = None
        try:
            piece = decode_piece(name, content, store.fields)
            _check_shard(store, name, piece, progress)
        except StoreError as error:
            videos = piece.videos if piece else _videos_in(store, name)
            damaged.append(DamagedShard(name, str(error), sorted(videos)))
    return damaged


def _check_shard(
    store: FeatureStore, name: str, piece: Piece, progress: Callable[[int], object]
) -> None:
    read = functools.partial(store.files.read, name, piece.size)
    digest = hashlib.sha256()
    for start in range(0, piece.size, _BLOCK):
        block = read(start, min(_BLOCK, piece.size - start))
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
        _, tensors = decode_header(read)
    except ValueError as error:
        raise StoreError(f"{shard} is not a safetensors file ({error}); {MEND}") from None
    if described != {tensor: (shape, begin) for tensor, (shape, begin, _) in tensors.items()}:
        raise StoreError(f"{shard} does not hold what its index piece says; {MEND}")


def _videos_in(store: FeatureStore, name: str) -> set[str]:
    """Name the videos of a shard from the shard itself."""
    try:
        _, tensors = decode_header(functools.partial(store.files.read, name, None))
        return {tensor.rpartition("/")[0] for tensor in tensors}
    except ValueError:
        return set()
