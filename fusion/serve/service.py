"""Answers questions from an index: what the routes call, in threads."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion.evaluation.localisation.scores import directions_from_text
from fusion.modalities import members, spell
from fusion.search.storage import SearchError
from fusion.serve.questions import Media, encode_media
from fusion.serve.schemas import Refused
from fusion.serve.timelines import Timelines

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
        media: reads uploads.
        within: combinations to compare, where a question does not say.

    Raises:
        Refused: the index lacks one of them.
    """

    def __init__(self, index: Any, media: Media, within: Sequence[str] = ()) -> None:
        self.index, self.model, self.media = index, index.model, media
        self._embedding = threading.Lock()  # the model encodes one question at a time
        self._kept: OrderedDict[str, tuple[NDArray[np.float32], list[str]]] = OrderedDict()
        self.timelines = Timelines(self.model, self._embedding, self._line, self._unknown_words)
        self.broken: str | None = None  # why the model cannot be used, if it cannot
        self._within = tuple(within)
        self._digest = index.about()["model"]
        self._check_wish(Wish(within=self._within))

    def about(self) -> dict[str, Any]:
        """Return what the index has; Refused (503): it cannot be used."""
        about = self._about()
        names = {name: NAMES.get(name, name) for name in about["modalities"]}
        finds = bool(directions_from_text(about["modalities"], about["combinations"]))
        return about | {"words": names, "version": str(about["version"]), "steps": finds}

    def health(self) -> dict[str, Any]:
        """Return the size of the index; Refused (503): it or the model cannot be used."""
        about = self._about()
        if self.broken:
            raise Refused(503, f"the model cannot be used ({self.broken})")
        return {"ok": True, "films": about["films"], "clips": about["clips"]}

    def films(self, query: str = "") -> list[dict[str, Any]]:
        """Return the films with ``query`` in their name, in any case."""
        with self._answering(503):
            found = self.index.films()
        return [
            {"id": film.id, "name": film.name, "seconds": film.seconds, "clips": film.clips}
            for film in found
            if query.casefold() in film.name.casefold()
        ]

    def search(self, words: str, wish: Wish) -> dict[str, Any]:
        """Answer a question in words."""
        begin = time.perf_counter()
        vector, unknown = self._embed_words(words)
        hits = self._hits(self.index.nearest, vector, wish)
        return _answer(hits, unknown, [], begin)

    def near(self, clip: int, wish: Wish) -> dict[str, Any]:
        """Return the clips that are most like a clip of the index."""
        begin = time.perf_counter()
        has = self._clip(clip).has
        asked = wish.within or self._within
        if asked and not any(set(combination) <= set(has) for combination in asked):
            what = ", ".join(asked)
            raise Refused(400, f"clip {clip} has nothing of {what}; it has {', '.join(has)}")
        return _answer(self._hits(self.index.near, clip, wish), [], [], begin)

    def ask(
        self, words: str, files: dict[str, Path], times: tuple[float, float | None], wish: Wish
    ) -> dict[str, Any]:
        """Answer a question of words and files; ``files`` by audio, picture and video."""
        if not files:
            return self.search(words, wish)
        begin = time.perf_counter()
        self._check_wish(wish)  # before films are decoded for nothing
        unknown = self._unknown_words(words)
        with self.media.read(words, files, *times) as question, self._embedding:
            try:
                vector, notes = encode_media(self.model, question)
            except ValueError as error:
                raise Refused(400, _plain(error), unknown if words else None) from None
        hits = self._hits(self.index.nearest, vector, wish)
        return _answer(hits, unknown, notes, begin)

    def clip(self, number: int) -> dict[str, Any]:
        """Return a clip; Refused (404): there is none of this number."""
        return _clip(self._clip(number), self._clip(number).thumbnail)

    def thumbnail(self, number: int) -> bytes:
        """Return the JPEG of a clip; Refused (404): it has none."""
        found: bytes | None = self._clip(number).thumbnail
        if found is None:
            raise Refused(404, f"clip {number} has no picture")
        return found

    def film_path(self, number: int) -> Path:
        """Return where a film of the index is; Refused (404): there is none of this number."""
        with self._answering(404):
            return Path(self.index.film_path(number))

    def film_name(self, number: int) -> str:
        """Return the short name of a film of the index; Refused (404): it has none."""
        found = next((film["name"] for film in self.films() if film["id"] == number), None)
        if found is None:
            raise Refused(404, f"the index has no film {number}")
        return str(found)

    def warm(self) -> None:
        """Do once what takes longer the first time."""
        with contextlib.suppress(Refused):
            self._embed_words("a")
        self.media.warm()

    def _clip(self, number: int) -> Any:
        with self._answering(404):
            return self.index.clip(number)

    def _about(self) -> dict[str, Any]:
        try:
            about: dict[str, Any] = self.index.about()
        except (ValueError, OSError, sqlite3.Error) as error:
            reason = self._line(error)
            raise Refused(503, f"the index cannot be used now: {reason}", retry_after=5) from None
        if about["model"] != self._digest:
            raise Refused(503, "the index is of another model now; start fusion serve again")
        return about

    def _embed_words(self, words: str) -> tuple[NDArray[np.float32], list[str]]:
        """Embed words: (E,), and those that the model does not know."""
        words = " ".join(words.split())
        if not words:
            raise Refused(400, "the question is empty; write words, or give a file")
        with self._embedding:
            if found := self._kept.pop(words, None):
                self._kept[words] = found  # as the latest
                return found
            unknown = self._unknown_words(words)
            try:
                found = self.model.encode({"text": words}).numpy(), unknown
                self.broken = None
            except ValueError as error:
                raise Refused(400, _plain(error), unknown) from None
            except (RuntimeError, MemoryError) as error:  # of the device
                self.broken = _plain(error)
                raise Refused(503, f"the model cannot be used ({self.broken})") from None
            self._kept[words] = found
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return found

    def _unknown_words(self, words: str) -> list[str]:
        """Return the words that the model leaves out; of some models none is known to be so."""
        find = getattr(getattr(self.model, "text_encoder", None), "unknown_words", None)
        return list(dict.fromkeys(find(words))) if find else []

    def _check_wish(self, wish: Wish) -> None:
        known = self._about()["combinations"]
        for combination in wish.within:
            try:
                spelt = spell(members(combination, self.model.modalities))
            except ValueError as error:
                raise Refused(400, str(error)) from None
            if spelt not in known:
                raise Refused(
                    400,
                    f"the index has no combination {combination!r}; choose from {', '.join(known)}",
                )
        if isinstance(wish.film, int):
            self.film_path(wish.film)

    def _hits(self, search: Callable[..., Any], asked: Any, wish: Wish) -> list[dict[str, Any]]:
        self._check_wish(wish)
        with self._answering(503):  # the wish is checked, so the index or its engine is at fault
            found = search(asked, wish.top, wish.within or self._within, wish.film)
            return [self._hit(hit) for hit in found]

    def _hit(self, hit: Any) -> dict[str, Any]:
        by = {name: float(cosine) for name, cosine in hit.by.items()}
        more = {"score": float(hit.score), "calibrated": float(hit.calibrated), "by": by}
        try:
            thumbnail = self.index.clip(hit.id).thumbnail
        except SearchError:  # the clip has gone meanwhile
            thumbnail = None
        return _clip(hit, thumbnail) | more

    @contextlib.contextmanager
    def _answering(self, status: int) -> Iterator[None]:
        """Turn errors into refusals: 503 if the index cannot be used, else ``status``."""
        try:
            yield
        except (ValueError, OSError, sqlite3.Error) as error:
            self._about()
            raise Refused(status, self._line(error)) from None

    def _line(self, error: Exception) -> str:
        """Write an error, without the path of the index."""
        return _plain(error).replace(str(self.index.folder), Path(self.index.folder).name)


def _plain(error: Exception) -> str:
    return (str(error) or type(error).__name__).removeprefix("the input: ")


def _clip(clip: Any, thumbnail: bytes | None) -> dict[str, Any]:
    # The tag lets a browser keep a thumbnail, and yet see the one of another index.
    address = f"/thumbnails/{clip.id}?v={tag_of(thumbnail)}" if thumbnail else None
    return {
        "id": int(clip.id),
        "film": {"id": int(clip.film), "name": clip.name},
        "start": clip.start,
        "end": clip.end,
        "text": clip.text,
        "thumbnail": address,
        "media": f"/films/{clip.film}",
    }


def tag_of(content: bytes) -> str:
    """Name a content for the caches of browsers."""
    return f"{zlib.crc32(content):08x}"


def _answer(
    hits: list[dict[str, Any]], unknown: list[str], notes: list[str], begin: float
) -> dict[str, Any]:
    seconds = round(time.perf_counter() - begin, 6)
    return {"hits": hits, "unknown": unknown, "notes": notes, "seconds": seconds}
