"""Neighbours by a Qdrant server, for collections that outgrow one machine.

The server has a collection for each index. A clip is a point with its number, a vector for each
combination that it has, and what questions are limited by: ``film``, its number, and ``has``, the
letters of its modalities. A clip never changes, so the server equals the index as soon as it has
points of the same numbers. The index remembers up to which clip that is so; later clips are
compared exactly. The key of the server, if it needs one, is read from ``QDRANT_API_KEY``.

Shapes: C candidates.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import secrets
import threading
import warnings
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fusion.search.database import SearchError
from fusion.search.engines.engine import Wanted
from fusion.search.engines.exact import Exact
from fusion.search.snapshot import Snapshot
from fusion.search.storage import Storage

FEW = 20_000  # clips that a question is about: they are compared here
FLOATS = 500_000  # sent at a time
PAGE = 10_000  # numbers of points read at a time
KEY = "QDRANT_API_KEY"


def need_client() -> Any:
    """Import the package qdrant_client; SearchError: it is not installed."""
    try:
        return importlib.import_module("qdrant_client")
    except ImportError:
        raise SearchError(
            "the engine qdrant needs qdrant-client; install it by: pip install 'fusion[qdrant]'"
        ) from None


def check_url(url: str) -> None:
    """Raise a SearchError if an address is not one of a server, or holds a password."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SearchError(f"--url must be like http://localhost:6333; got {url!r}")
    if "@" in parts.netloc or parts.query:
        raise SearchError(
            f"--url must not hold a password, because the index keeps it; put the key into {KEY}"
        )


def connect(url: str) -> Any:
    """Open a client of a server."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 6333)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a key goes over http: the user wrote this address
        return need_client().QdrantClient(
            url=url, port=port, api_key=os.environ.get(KEY), timeout=60, check_compatibility=False
        )


def reach(url: str) -> None:
    """Raise a SearchError unless there is a server at an address."""
    check_url(url)
    with errors(url), contextlib.closing(connect(url)) as client:
        client.get_collections()


class Qdrant:
    """Asks a server."""

    name = "qdrant"

    def __init__(self, url: str) -> None:
        self.url, self._exact = url, Exact()
        self._models = need_client().models
        self._connecting, self._client = threading.Lock(), None

    def candidates(self, snapshot: Snapshot, wanted: Wanted) -> NDArray[np.int64]:
        """Return places of clips (C,) among which the nearest are, as far as the server knows."""
        made: dict[str, Any] = snapshot.engine or {}
        old = 0
        if made.get("url") == self.url:
            old = int(np.searchsorted(snapshot.ids, made.get("clips", 0), side="right"))
        count = int(np.count_nonzero(wanted.allowed[:old]))
        if count <= FEW:
            return self._exact.candidates(snapshot, wanted)
        known, later = wanted.allowed.copy(), wanted.allowed.copy()
        known[old:] = later[:old] = False  # a killed run may have sent more than the index knows
        least = min(count, wanted.hits)
        places = self._ask(snapshot, wanted._replace(allowed=known), least, made["collection"])
        if not later.any():
            return places
        more = self._exact.candidates(snapshot, wanted._replace(allowed=later))
        return np.concatenate([places, more])

    def _ask(
        self, snapshot: Snapshot, wanted: Wanted, least: int, collection: str
    ) -> NDArray[np.int64]:
        """Ask the server until there are at least so many clips that the snapshot allows."""
        limit = 4 * wanted.hits + 60
        while True:
            with errors(self.url):
                found = self._connected().query_points(
                    collection,
                    query=wanted.query.tolist(),
                    using=wanted.combination,
                    query_filter=self._filter(snapshot, wanted),
                    search_params=self._models.SearchParams(hnsw_ef=max(256, 2 * limit)),
                    limit=limit,
                    with_payload=False,
                )
            numbers = np.array([point.id for point in found.points], np.int64)
            places = np.minimum(np.searchsorted(snapshot.ids, numbers), len(snapshot.ids) - 1)
            places = places[(snapshot.ids[places] == numbers) & wanted.allowed[places]]
            if len(places) >= least or len(numbers) < limit:
                return places
            limit *= 2  # many of them have left the index, or are not in it yet

    def _filter(self, snapshot: Snapshot, wanted: Wanted) -> Any:
        """Write down for the server which clips may be found; None: all of the combination."""
        limits: dict[str, list[Any]] = {}
        if wanted.films is not None:
            limits["film"] = list(wanted.films)
        if set(wanted.has) != set(snapshot.kinds(wanted.combination)):
            limits["has"] = list(wanted.has)
        make = self._models
        conditions = [
            make.FieldCondition(key=key, match=make.MatchAny(any=values))
            for key, values in limits.items()
        ]
        return make.Filter(must=conditions) if conditions else None

    def _connected(self) -> Any:
        with self._connecting:
            if self._client is None:
                self._client = connect(self.url)
            return self._client

    def close(self) -> None:
        """Close the connection."""
        with self._connecting:
            if self._client is not None:
                self._client.close()
            self._client = None


def synchronise(storage: Storage, url: str, quiet: bool = False) -> None:
    """Make a server's collection equal to an index: send new clips, remove those that have gone.

    It can be stopped at any time; the next call does the rest.
    """
    made = storage.fact("engine")
    collection = made.get("collection") or f"fusion-{secrets.token_hex(8)}"
    snapshot = Snapshot(storage)
    if not snapshot.width:
        return  # no clips yet
    with errors(url), contextlib.closing(connect(url)) as client:
        whole = _ensure(client, collection, snapshot)
        if not whole or made.get("collection") != collection:
            made = made | {"collection": collection, "clips": 0}
            storage.set_facts(engine=made)
        there = _numbers(client, collection)
        new = np.setdiff1d(snapshot.ids, there, assume_unique=True)
        bar = tqdm(total=len(new), unit="clip", desc=f"sending to {url}", disable=quiet)
        step = max(1, FLOATS // (snapshot.width * len(snapshot.combinations)))
        for first in range(0, len(new), step):
            points = _points(snapshot, new[first : first + step])
            client.upsert(collection, points=points, wait=True)
            bar.update(len(points))
        bar.close()
        gone = np.setdiff1d(there, snapshot.ids, assume_unique=True).tolist()
        for first in range(0, len(gone), PAGE):
            client.delete(collection, points_selector=gone[first : first + PAGE], wait=True)
    storage.set_facts(engine=made | {"clips": int(snapshot.ids.max(initial=0))})


def _ensure(client: Any, collection: str, snapshot: Snapshot) -> bool:
    """Make a collection, or one in place of another kind; return whether it was there."""
    models = need_client().models
    if client.collection_exists(collection):
        known = client.get_collection(collection).config.params.vectors
        sizes = {c: vector.size for c, vector in known.items()} if isinstance(known, dict) else {}
        if sizes == dict.fromkeys(snapshot.combinations, snapshot.width):
            return True
        client.delete_collection(collection)
    vectors = {
        c: models.VectorParams(size=snapshot.width, distance=models.Distance.DOT, on_disk=True)
        for c in snapshot.combinations
    }
    client.create_collection(collection, vectors_config=vectors)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a client without a server has no such indexes
        client.create_payload_index(collection, "film", models.PayloadSchemaType.INTEGER)
        client.create_payload_index(collection, "has", models.PayloadSchemaType.KEYWORD)
    return False


def _numbers(client: Any, collection: str) -> NDArray[np.int64]:
    """Return the numbers of all points of a collection, ascending."""
    found: list[int] = []
    following = None
    while True:
        points, following = client.scroll(
            collection, limit=PAGE, offset=following, with_payload=False, with_vectors=False
        )
        found += [point.id for point in points]
        if following is None:
            return np.unique(np.array(found, np.int64))


def _points(snapshot: Snapshot, clips: NDArray[np.int64]) -> list[Any]:
    models, points = need_client().models, []
    for place in np.searchsorted(snapshot.ids, clips).tolist():
        has = snapshot.letters_of(place)
        vectors = {
            c: snapshot.vector(place, c).tolist()
            for c in snapshot.combinations
            if set(c) <= set(has)
        }
        payload = {"film": int(snapshot.films[place]), "has": has}
        points.append(
            models.PointStruct(id=int(snapshot.ids[place]), vector=vectors, payload=payload)
        )
    return points


@contextlib.contextmanager
def errors(url: str) -> Iterator[None]:
    """Say what a server answers, or that it does not, in one line."""
    known = (need_client().http.exceptions.ApiException, ValueError, OSError)
    try:
        yield
    except SearchError:
        raise
    except known as error:
        line = " ".join(str(error).split())
        raise SearchError(
            f"the Qdrant server at {url} does not do what it should ({line}); see that it runs and"
            f" that {KEY} is right, then index once more; or search with --engine exact"
        ) from None
