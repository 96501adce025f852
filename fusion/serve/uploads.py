"""Receive the form of a question: fields into memory, files onto the disk, both with limits.

The body is read as a stream. A request that breaks a limit is refused as soon as it does, and what
it sent is deleted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from fusion.serve.schemas import Refused

FILES = ("audio", "picture", "video")
FIELDS = ("words", "start", "end", "in", "film", "top")
FIELD_BYTES = 10_000  # of a field
HEADER_BYTES, HEADERS = 4096, 16  # of a header, and headers of a part
OVERHEAD = 65_536  # bytes of a form beside its files
SLOWEST = 300.0  # seconds that an upload may take
DRAINED = 2**30  # bytes that are read after a refusal: a browser shows no answer before it has sent
_BLOCK = 2**20  # bytes written to the disk at a time
_PREFIX = "fusion-serve-"


class Folder:
    """Where uploads are while they are needed; what a killed server left there is deleted."""

    def __init__(self) -> None:
        for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
            owner = left.name.removeprefix(_PREFIX).partition("-")[0]
            if owner.isdigit() and not _runs(int(owner)):
                shutil.rmtree(left, ignore_errors=True)
        self._folder = tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-")
        self.path = Path(self._folder.name)

    def close(self) -> None:
        """Delete everything."""
        self._folder.cleanup()


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is of another user
        return True
    return True


class Form:
    """A form that is received: ``fields`` and paths of ``files``, by name.

    It is fed with the bytes of a multipart body. An empty file field, as a browser sends it for
    nothing chosen, is left out.
    """

    def __init__(self, folder: Path, boundary: bytes, most: int) -> None:
        self.fields: dict[str, str] = {}
        self.files: dict[str, Path] = {}
        self._folder, self._most, self._bytes = folder, most, 0
        self._header, self._value = b"", b""
        self._headers: dict[str, str] = {}
        self._name, self._text, self._named = "", bytearray(), False
        self._path: Path | None = None  # of the part, if it is a file
        self._waiting: list[bytes] = []  # blocks for it
        self.ended = False
        callbacks: dict[str, Callable[..., None]] = {
            "on_part_begin": self._begin,
            "on_header_field": self._field,
            "on_header_value": self._content,
            "on_header_end": self._header_end,
            "on_headers_finished": self._start,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }
        self._parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]

    def feed(self, data: bytes) -> None:
        """Take a part of the body, and write files."""
        self._bytes += len(data)
        if self._bytes > self._most + OVERHEAD:
            raise Refused(413, too_large(self._most))
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise Refused(400, f"the form is not multipart/form-data ({error})") from None
        self._write()

    def _begin(self) -> None:
        self._header, self._value, self._headers = b"", b"", {}

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]
        self._check_headers()

    def _content(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._check_headers()

    def _check_headers(self) -> None:
        if len(self._header) + len(self._value) > HEADER_BYTES or len(self._headers) > HEADERS:
            raise Refused(413, "a part of the form has too many or too long headers")

    def _header_end(self) -> None:
        self._headers[self._header.decode("latin-1").lower()] = self._value.decode("latin-1")
        self._header, self._value = b"", b""

    def _start(self) -> None:
        _, options = parse_options_header(self._headers.get("content-disposition"))
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if self._name in self.fields or self._name in self.files:
            raise Refused(422, f"{self._name} is given twice; give it once")
        self._text = bytearray()
        if self._name in FILES:
            self._path = self._folder / self._name  # never the name that the client gives
            self._path.touch(0o600)
            self.files[self._name] = self._path
            self._named = bool(options.get(b"filename"))
        elif self._name in FIELDS:
            self._path = None
        else:
            known = ", ".join((*FIELDS, *FILES))
            raise Refused(422, f"the form has a field {self._name[:40]!r}; it may have {known}")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._path is not None:
            self._waiting.append(data[start:end])
        else:
            self._text += data[start:end]
            if len(self._text) > FIELD_BYTES:
                raise Refused(413, f"{self._name} is longer than {FIELD_BYTES} bytes; shorten it")

    def _end(self) -> None:
        self._write()
        if self._path is None:
            self.fields[self._name] = self._text.decode("utf-8", "replace")
        elif not self._named and not self._path.stat().st_size:
            del self.files[self._name]  # nothing was chosen
        self._path = None

    def _finish(self) -> None:
        self.ended = True

    def _write(self) -> None:
        if self._waiting and self._path is not None:
            try:
                with open(self._path, "ab") as file:
                    file.writelines(self._waiting)
            except OSError as error:
                reason = error.strerror or str(error)
                raise Refused(503, f"the upload cannot be kept ({reason}); make room") from None
        self._waiting = []


@contextlib.asynccontextmanager
async def receive(request: Request, folder: Path, most: int) -> AsyncIterator[Form]:
    """Receive the form of a request; its files are deleted at the end of the ``async with``.

    Raises:
        Refused: 411 or 413 it is too large, 415 it is no form, 408 it takes too long.
    """
    boundary = _boundary(request.headers, most)
    with tempfile.TemporaryDirectory(dir=folder) as own:
        form = Form(Path(own), boundary, most)
        try:
            async with asyncio.timeout(SLOWEST):
                await _read(request, form)
        except TimeoutError:
            raise Refused(408, f"the upload took more than {SLOWEST:g} s; send less") from None
        except ClientDisconnect:
            raise Refused(400, "the client went away before it had sent all") from None
        yield form


async def _read(request: Request, form: Form) -> None:
    """Feed the body to a form in blocks, in a thread: the disk may be slow."""
    waiting, size = [], 0
    async for data in request.stream():
        waiting.append(data)
        size += len(data)
        if size >= _BLOCK:
            await asyncio.to_thread(form.feed, b"".join(waiting))
            waiting, size = [], 0
    await asyncio.to_thread(form.feed, b"".join(waiting))
    if not form.ended:
        raise Refused(400, "the form ends too early; send it again")


def _boundary(headers: Mapping[str, Any], most: int) -> bytes:
    kind, options = parse_options_header(headers.get("content-type"))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise Refused(415, "send the question as multipart/form-data")
    length = headers.get("content-length", "0")
    if not length.isdigit():
        raise Refused(400, "Content-Length is not a number")
    if int(length) > most + OVERHEAD:
        raise Refused(413, too_large(most))
    return bytes(boundary)


def too_large(most: int) -> str:
    """Say that an upload is too large."""
    return f"the upload is larger than {most / 2**20:.0f} MB; cut out the part to search for"


async def drain(request: Request) -> None:
    """Read what a refused client still sends, and forget it, so that it sees the answer."""
    size = 0
    with contextlib.suppress(ClientDisconnect, TimeoutError, RuntimeError):
        async with asyncio.timeout(30):
            async for data in request.stream():
                size += len(data)
                if size > DRAINED:
                    return
