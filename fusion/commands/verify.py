"""Checking all bytes of a store."""

from __future__ import annotations

from pathlib import Path

from tqdm import tqdm

from fusion.data.captions.index import FILES, CaptionStore
from fusion.data.features.store import FeatureStore, find_damaged_shards
from fusion.words import number_of


def verify(location: str) -> None:
    """Read a whole store and compare it with the SHA-256 that was written; print what is damaged.

    Args:
        location: of a feature store, a folder or a URL; or the folder of a caption store.

    Raises:
        ValueError: there is no store, or it is damaged.
    """
    if any((Path(location) / name).exists() for name in FILES):
        captions = CaptionStore(location)
        captions.verify()
        print(f"{location}: {number_of(captions.num_captions, 'caption')}, undamaged")
        return
    store = FeatureStore(location)
    with tqdm(desc="verifying", total=sum(store.index.sizes), unit="B", unit_scale=True) as bar:
        damaged = find_damaged_shards(store, bar.update)
    for shard in damaged:
        print(f"{shard.problem} (videos: {', '.join(shard.videos) or 'unknown'})")
    shards = number_of(len(store.index.shards), "shard")
    if damaged:
        raise ValueError(f"{location}: {len(damaged)} of {shards} damaged; see the lines above")
    print(f"{location}: {number_of(len(store), 'video')} in {shards}, undamaged")
