"""Ask a server of ``fusion serve`` from Python; it needs the standard library alone."""

from __future__ import annotations

import http.client
import json
import logging
import secrets
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fusion.search.records import FilmFacts, Hit

logger = logging.getLogger(__name__)

ADDRESS = "http://127.0.0.1:8765"
_BLOCK = 2**18  # bytes sent at a time


class ServeError(ValueError):
    """A server did not answer a question; one line.

    Attributes:
        status: of HTTP; None: the server was not reached.
        unknown: words that the model does not know.
    """

    def __init__(self, message: str, status: int | None = None, unknown: Sequence[str] = ()):
        super().__init__(message)
        self.status, self.unknown = status, list(unknown)


class Client:
    """Search the index of a server; hits are as those of :class:`fusion.Index`.

    Their ``video`` is the address of the media file.

    Args:
        address: that ``fusion serve`` printed.
        timeout: seconds to wait for an answer.
    """

    def __init__(self, address: str = ADDRESS, timeout: float = 60.0) -> None:
        self.address, self.timeout = address.rstrip("/"), timeout
        if not self.address.startswith(("http://", "https://")):
            raise ServeError(f"an address begins with http://, such as {ADDRESS}; got {address!r}")
        no_proxy = urllib.request.ProxyHandler({})  # the server is here or near
        self._opener = urllib.request.build_opener(no_proxy)

    def search(
        self,
        words: str = "",
        k: int = 10,
        *,
        audio: str | Path | None = None,
        picture: str | Path | None = None,
        video: str | Path | None = None,
        start: float | None = None,
        end: float | None = None,
        within: Sequence[str] = (),
        film: int | str | None = None,
    ) -> list[Hit]:
        """Find the clips that fit words and files best; what is given counts together.

        Unknown words are left out, and logged.

        Args:
            words: the question.
            k: how many hits.
            audio: a sound file, or a film whose sound is taken.
            picture: a picture file.
            video: a film: its picture, and its sound unless ``audio`` is given.
            start: second of the files where the question begins.
            end: second where it ends.
            within: combinations to compare, such as ``("v",)``.
            film: the number of a film, or a part of the names of films.

        Raises:
            ServeError: the server cannot be reached, or refuses the question.
        """
        given = {"audio": audio, "picture": picture, "video": video}
        files = {name: Path(file) for name, file in given.items() if file is not None}
        fields = _wish(k, within, film)
        if not files:
            answer = self._get("/api/search", fields | {"q": words})
        else:
            times = {"start": start, "end": end}
            fields |= {name: str(second) for name, second in times.items() if second is not None}
            answer = self._post("/api/search", fields | {"words": words}, files)
        if answer["unknown"]:
            logger.warning("unknown words are left out: %s", ", ".join(answer["unknown"]))
        for note in answer["notes"]:
            logger.warning("%s", note)
        return [self._hit(hit) for hit in answer["hits"]]

    def near(
        self, clip: int, k: int = 10, within: Sequence[str] = (), film: int | str | None = None
    ) -> list[Hit]:
        """Find the clips that are most like a clip, by its number; see search."""
        answer = self._get(f"/api/near/{int(clip)}", _wish(k, within, film))
        return [self._hit(hit) for hit in answer["hits"]]

    def films(self, query: str = "") -> list[FilmFacts]:
        """Return the films with ``query`` in their name; their path is an address."""
        found = self._get("/api/films", {"query": query})
        return [
            FilmFacts(
                film["id"],
                film["name"],
                f"{self.address}/films/{film['id']}",
                film["seconds"],
                film["clips"],
                None,
            )
            for film in found
        ]

    def about(self) -> dict[str, Any]:
        """Return what the index has, as ``/api/about`` says it."""
        about: dict[str, Any] = self._get("/api/about", {})
        return about

    def thumbnail(self, clip: int) -> bytes:
        """Return the JPEG of a clip; ServeError: it has none."""
        return self._open(urllib.request.Request(f"{self.address}/thumbnails/{int(clip)}"))

    def _hit(self, hit: Mapping[str, Any]) -> Hit:
        return Hit(
            video=f"{self.address}{hit['media']}",
            start=hit["start"],
            end=hit["end"],
            score=hit["score"],
            by=hit["by"],
            text=hit["text"],
            id=hit["id"],
            calibrated=hit["calibrated"],
            film=hit["film"]["id"],
            name=hit["film"]["name"],
        )

    def _get(self, path: str, fields: Mapping[str, str]) -> Any:
        query = urllib.parse.urlencode(
            {name: value for name, value in fields.items() if value or name == "q"}
        )
        return self._ask(urllib.request.Request(f"{self.address}{path}?{query}"))

    def _post(self, path: str, fields: Mapping[str, str], files: Mapping[str, Path]) -> Any:
        boundary = secrets.token_hex(16)
        parts: list[bytes | Path] = []
        for name, value in fields.items():
            parts.append(_head(boundary, name) + value.encode() + b"\r\n")
        for name, file in files.items():
            if not file.is_file():
                raise ServeError(f"{name}: there is no file {file}; check the path")
            parts += [_head(boundary, name, "file"), file, b"\r\n"]
        parts.append(f"--{boundary}--\r\n".encode())
        size = sum(p.stat().st_size if isinstance(p, Path) else len(p) for p in parts)
        headers = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Content-Length": str(size),
        }
        address = f"{self.address}{path}"
        request = urllib.request.Request(address, _blocks(parts), headers, method="POST")
        return self._ask(request)

    def _ask(self, request: urllib.request.Request) -> Any:
        content = self._open(request)
        try:
            return json.loads(content)
        except ValueError:
            raise ServeError(f"{self.address} is no server of fusion; check the address") from None

    def _open(self, request: urllib.request.Request) -> bytes:
        try:
            with self._opener.open(request, timeout=self.timeout) as answer:
                content: bytes = answer.read()
                return content
        except urllib.error.HTTPError as error:
            with error:
                raise _refusal(error) from None
        except TimeoutError:
            raise ServeError(f"{self.address} did not answer in {self.timeout:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise ServeError(
                f"{self.address} cannot be reached ({reason}); start it by: fusion serve INDEX"
            ) from None


def _wish(k: int, within: Sequence[str], film: int | str | None) -> dict[str, str]:
    return {"top": str(k), "in": ",".join(within), "film": "" if film is None else str(film)}


def _head(boundary: str, name: str, file: str | None = None) -> bytes:
    more = f'; filename="{file}"' if file else ""
    return f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode()


def _blocks(parts: Sequence[bytes | Path]) -> Iterator[bytes]:
    for part in parts:
        if isinstance(part, bytes):
            yield part
            continue
        with open(part, "rb") as file:
            while block := file.read(_BLOCK):
                yield block


def _refusal(error: urllib.error.HTTPError) -> ServeError:
    try:
        content = json.loads(error.read())
        message, unknown = str(content["error"]), content.get("unknown") or ()
    except (ValueError, KeyError, TypeError, OSError):
        return ServeError(f"the server answers with status {error.code}", error.code)
    return ServeError(message, error.code, unknown)
