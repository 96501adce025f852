"""Answers questions from an index: what the routes call, in threads."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion.search.storage import SearchError
from fusion.serve.refusal import Refused

KEPT = 1024  # questions whose embeddings stay in memory
NAMES = {"video": "seen", "audio": "heard", "text": "said"}


class Wish(NamedTuple):
    """What a search is to return."""

    top: int = 20
    within: Sequence[str] = ()  # combinations; empty: the largest of each clip
    film: int | str | None = None  # number of a film, or a part of a name


class Service:
    """An index and its model, as the API shows them. It may be used from several threads.

    Args:
        index: a :class:`fusion.Index`.
    """

    def __init__(self, index: Any) -> None:
        self.index, self.model = index, index.model
        self._embedding = threading.Lock()  # the model encodes one question at a time
        self._kept: OrderedDict[str, tuple[NDArray[np.float32], list[str]]] = OrderedDict()

    def about(self) -> dict[str, Any]:
        """Return what the index has; Refused (503): it cannot be used."""
        with self._answering(503):
            about: dict[str, Any] = self.index.about()
        names = {name: NAMES.get(name, name) for name in about["modalities"]}
        return about | {"words": names, "version": str(about["version"])}

    def films(self, query: str = "") -> list[dict[str, Any]]:
        """Return the films with ``query`` in their name, in any case."""
        with self._answering(503):
            found = self.index.films()
        return [
            {"id": film.id, "name": film.name, "seconds": film.seconds, "clips": film.clips}
            for film in found
            if query.casefold() in film.name.casefold()
        ]

    def words(self, words: str, wish: Wish) -> dict[str, Any]:
        """Answer a question in words."""
        begin = time.perf_counter()
        vector, unknown = self.embed_words(words)
        hits = self._hits(self.index.nearest, vector, wish)
        return _answer(hits, unknown, begin)

    def near(self, clip: int, wish: Wish) -> dict[str, Any]:
        """Return the clips that are most like a clip of the index."""
        begin = time.perf_counter()
        self.clip(clip)
        return _answer(self._hits(self.index.near, clip, wish), [], begin)

    def media(self, parts: dict[str, Any], times: Any, wish: Wish) -> dict[str, Any]:
        """Answer a question of texts and files, by modality; ``times``: start and end."""
        begin = time.perf_counter()
        words = parts.get("text", "")
        unknown = self.unknown_words(words) if words else []
        start, end = times
        with self._answering(400), self._embedding:
            vector = self.model.encode(parts, start=start, end=end).numpy()
        return _answer(self._hits(self.index.nearest, vector, wish), unknown, begin)

    def clip(self, number: int) -> dict[str, Any]:
        """Return a clip; Refused (404): there is none of this number."""
        with self._answering(404):
            clip = self.index.clip(number)
        return _clip(clip, clip.thumbnail is not None)

    def thumbnail(self, number: int) -> bytes:
        """Return the JPEG of a clip; Refused (404): it has none."""
        with self._answering(404):
            found: bytes | None = self.index.clip(number).thumbnail
        if found is None:
            raise Refused(404, f"clip {number} has no picture")
        return found

    def film_path(self, number: int) -> Any:
        """Return where a film of the index is; Refused (404): there is none of this number."""
        with self._answering(404):
            return self.index.film_path(number)

    def embed_words(self, words: str) -> tuple[NDArray[np.float32], list[str]]:
        """Embed words: (E,), and those that the model does not know.

        Refused (400): it knows none of them.
        """
        words = " ".join(words.split())
        if not words:
            raise Refused(400, "the question is empty; write words, or give a file")
        with self._embedding:
            if words in self._kept:
                self._kept.move_to_end(words)
                return self._kept[words]
            unknown = self.unknown_words(words)
            try:
                vector = self.model.encode({"text": words}).numpy()
            except ValueError as error:
                raise Refused(400, str(error).removeprefix("the input: "), unknown) from None
            self._kept[words] = vector, unknown
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return vector, unknown

    def unknown_words(self, words: str) -> list[str]:
        """Return the words that the model leaves out; of some models none is known to be so."""
        find = getattr(getattr(self.model, "text_encoder", None), "unknown_words", None)
        return list(dict.fromkeys(find(words))) if find else []

    def _hits(self, search: Callable[..., Any], asked: Any, wish: Wish) -> list[dict[str, Any]]:
        with self._answering(404 if isinstance(wish.film, int) else 400):
            found = search(asked, wish.top, wish.within, wish.film)
            return [self._hit(hit) for hit in found]

    def _hit(self, hit: Any) -> dict[str, Any]:
        seen = "v" in self.index.clip(hit.id).has
        more = {"score": hit.score, "calibrated": hit.calibrated, "by": dict(hit.by)}
        return _clip(hit, seen) | more

    @contextlib.contextmanager
    def _answering(self, status: int) -> Iterator[None]:
        """Turn errors into refusals: 503 if the index cannot be used, else ``status``."""
        try:
            yield
        except (ValueError, OSError, sqlite3.Error) as error:
            self._check()
            raise Refused(status, str(error)) from None

    def _check(self) -> None:
        try:
            self.index.about()
        except (SearchError, OSError, sqlite3.Error) as error:
            raise Refused(503, f"the index cannot be used now ({error})", retry_after=5) from None


def _clip(clip: Any, has_picture: bool) -> dict[str, Any]:
    return {
        "id": clip.id,
        "film": {"id": clip.film, "name": clip.name},
        "start": clip.start,
        "end": clip.end,
        "text": clip.text,
        "thumbnail": f"/thumbnails/{clip.id}" if has_picture else None,
        "media": f"/films/{clip.film}",
    }


def _answer(hits: list[dict[str, Any]], unknown: list[str], begin: float) -> dict[str, Any]:
    return {"hits": hits, "unknown": unknown, "seconds": round(time.perf_counter() - begin, 6)}
