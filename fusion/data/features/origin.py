"""What made the features of a store, for the tables of those who use them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fusion.data.features.problems import warn
from fusion.data.features.store import FeatureStore


def open_store(location: str | Path) -> FeatureStore:
    """Open a feature store; warn, loudly, if its maker said that its features are of no use.

    Raises:
        ValueError: see :class:`fusion.data.features.store.FeatureStore`.
    """
    store = FeatureStore(location)
    if warning := _facts(store).get("warning"):
        frame = "!" * 100
        warn(f"{frame}\n!!! {store.location}: {warning}\n{frame}")
    return store


def describe_features(store: FeatureStore) -> str:
    """Say which networks made the features of a store, and its maker's warning if there is one.

    They are among the facts of each video, ``networks`` and ``warning``, and the same for all
    videos of a store that ``tools/extract.py`` made, so the first video speaks for it.
    """
    facts, name = _facts(store), Path(store.location).name
    networks = facts.get("networks")
    made = f"features of {name}"
    if isinstance(networks, Mapping):
        by = " and ".join(map(str, networks.values())) or "no network"
        made = f"features of {by} ({name})"
    if warning := facts.get("warning"):
        made += f" [WARNING: {warning}]"
    return made


def _facts(store: FeatureStore) -> Mapping[str, Any]:
    return store.facts(store.videos[0]) if len(store) else {}
