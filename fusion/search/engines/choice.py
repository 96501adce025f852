"""Which engine an index uses, and what is done for it when films were indexed."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fusion.search.database import SearchError
from fusion.search.engines import NAMES, ivf, server
from fusion.search.engines.engine import Engine
from fusion.search.engines.exact import Exact
from fusion.search.snapshot import Snapshot
from fusion.search.storage import Storage

logger = logging.getLogger(__name__)


def check_engine(name: str | None, url: str | None, needed: bool = False) -> None:
    """Raise a SearchError if there is no such engine here, or it lacks an address if ``needed``."""
    if name not in (None, *NAMES):
        raise SearchError(f"there is no engine {name!r}; choose from {', '.join(NAMES)}")
    if name == "faiss":
        ivf.need_faiss()
    if name == "qdrant":
        server.need_client()
    if name == "qdrant" and url is None and needed:
        _address(url)
    if url is not None:
        if name != "qdrant":
            raise SearchError(f"--url {url} is for --engine qdrant; name that engine too")
        server.reach(url)


class Engines:
    """The engine of an index, which may choose another one while it is read.

    Args:
        folder: of the index.
        name: of the engine; None: that of the index, or what fits its size.
        url: of a server, if it is not the one of the index.

    Raises:
        SearchError: there is no such engine here.
    """

    def __init__(self, folder: Path, name: str | None = None, url: str | None = None) -> None:
        check_engine(name, url)
        self.folder, self._name, self._url = folder, name, url
        self._opening = threading.Lock()
        self._open: tuple[str, str | None] | None = None
        self._engine: Engine = Exact()

    def of(self, snapshot: Snapshot) -> Engine:
        """Return the engine for a state of the index."""
        made: dict[str, Any] = snapshot.engine or {}
        name = self._name or made.get("name") or "faiss"
        if name == "faiss" and not _is_large(snapshot):
            name = "exact"
        url = (self._url or made.get("url")) if name == "qdrant" else None
        with self._opening:
            if self._open != (name, url):
                self._engine, self._open = self._make(name, url), (name, url)
            return self._engine

    def _make(self, name: str, url: str | None) -> Engine:
        if name == "qdrant":
            return server.Qdrant(_address(url))
        if name == "faiss" and ivf.find_faiss():
            return ivf.Faiss(self.folder)
        if name == "faiss":
            logger.warning(f"{self.folder} is searched clip by clip; for speed {ivf.INSTALL}")
        return Exact()

    def prepare(self, storage: Storage, quiet: bool = False) -> None:
        """Do what new and removed clips need, see :func:`prepare`."""
        prepare(storage, self._name, self._url, quiet)

    def close(self) -> None:
        """Close files and connections; the next use opens them again."""
        with self._opening:
            self._engine.close()


def prepare(
    storage: Storage, name: str | None = None, url: str | None = None, quiet: bool = False
) -> None:
    """Do for the engine of an index what new and removed clips need; nothing if all is done.

    Args:
        storage: open for writing.
        name: the engine that the index is to use from now on; None: as before.
        url: of the server.
        quiet: show no progress.
    """
    check_engine(name, url)
    made = before = storage.fact("engine") or {}
    if name is not None and (name, url or made.get("url")) != (made.get("name"), made.get("url")):
        made = {"name": name}
        if name == "qdrant":
            made |= {"url": _address(url or before.get("url"))}
        storage.set_facts(engine=made)
    if made.get("name") == "qdrant":
        server.synchronise(storage, made["url"], quiet)
    elif made.get("name") != "exact":
        _make_lists(storage, quiet)


def _make_lists(storage: Storage, quiet: bool) -> None:
    """Make the lists of large combinations, and remove those of others."""
    snapshot = Snapshot(storage)
    if not _is_large(snapshot) and not snapshot.neighbours:
        return
    if ivf.find_faiss() is None:
        logger.warning(
            f"{storage.folder} is large, so searches take long; to make them fast, {ivf.INSTALL},"
            " and index once more"
        )
        return
    kept = {
        c: ivf.made_lists(snapshot, c)
        for c in snapshot.combinations
        if snapshot.count(c) > ivf.EXACT
    }
    wanted = [c for c in kept if ivf.needs_lists(snapshot, c)]
    for combination in tqdm(wanted, unit="combination", desc="neighbours", disable=quiet):
        kept[combination] = ivf.make_lists(snapshot, combination, storage.folder)
        made = {c: facts for c, facts in kept.items() if facts}
        storage.set_facts(neighbours=made)
    made = {c: facts for c, facts in kept.items() if facts}
    storage.set_facts(neighbours=made or None)
    ivf.remove_lists(storage.folder, {facts["file"] for facts in made.values()})


def _address(url: str | None) -> str:
    if url is None:
        raise SearchError("--engine qdrant needs the address of the server: --url URL")
    return url


def _is_large(snapshot: Snapshot) -> bool:
    return any(snapshot.count(combination) > ivf.EXACT for combination in snapshot.combinations)
