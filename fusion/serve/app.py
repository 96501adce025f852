"""The web application: the page, the API, and what is common to all answers."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

import fusion
from fusion.serve import uploads
from fusion.serve.api import first_problem, router
from fusion.serve.asking import Answering, Asking
from fusion.serve.decoding import LimitedDecoder, Limits
from fusion.serve.files import STYLE, manual_of, page_response
from fusion.serve.load import Measured, Meters, Turnstile
from fusion.serve.questions import Media
from fusion.serve.schemas import Refused
from fusion.serve.security import Guard, hosts_of
from fusion.serve.service import Service


@dataclasses.dataclass(frozen=True)
class Settings:
    """How an application serves.

    Attributes:
        host: address that it listens at; it decides which Host headers are accepted.
        upload_bytes: of all files of a question together.
        decoding: limits of each file.
        questions: how many are answered at a time, and how many more wait.
        uploads: the same of questions with files.
        within: combinations to compare, where a question does not say; empty: the largest of each
            clip.
    """

    host: str = "127.0.0.1"
    upload_bytes: int = 200 * 2**20
    decoding: Limits = dataclasses.field(default_factory=Limits)
    questions: tuple[int, int] = (2, 64)
    uploads: tuple[int, int] = (2, 8)
    within: Sequence[str] = ()


def create_app(
    index: Any, settings: Settings | None = None, asker: Answering | None = None
) -> FastAPI:
    """Make the application of a :class:`fusion.Index`.

    Args:
        index: what is searched.
        settings: None: those of a new one.
        asker: answers questions about pictures; None: they are not answered.

    Raises:
        Refused: the index lacks a combination of ``within``.
    """
    settings = settings or Settings()
    app = FastAPI(
        title="fusion",
        version=fusion.__version__,
        summary="Search films by words, sound, picture or any of them together",
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
        lifespan=_lifespan,
    )
    state = app.state
    state.upload_bytes, state.decoding = settings.upload_bytes, settings.decoding
    state.decoder = LimitedDecoder(settings.decoding)
    state.service = Service(index, Media(index.model, state.decoder), settings.within)
    state.asking = None if asker is None else Asking(asker, state.decoder)
    state.timelines = Turnstile("timelines", 1, 8, retry_after=10)
    state.questions = Turnstile("questions", *settings.questions, retry_after=1)
    state.uploads = Turnstile("uploads", *settings.uploads, retry_after=5)
    state.small = Turnstile("small", 4, 0, retry_after=1)  # only its threads are used
    state.meters = Meters()
    for turnstile in (state.questions, state.uploads, state.timelines):
        state.meters.watch(turnstile)
    app.include_router(router)
    _add_pages(app)
    app.add_exception_handler(Refused, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse)
    app.add_exception_handler(HTTPException, _refuse)
    app.add_exception_handler(Exception, _fail)
    app.add_middleware(Guard, is_ours=hosts_of(settings.host))
    app.add_middleware(Measured, meters=state.meters)
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Start what the application needs, and end it: no program and no file stays."""
    state = app.state
    state.folder = uploads.Folder()
    try:
        await run_in_threadpool(state.service.warm)
        yield
    finally:
        state.decoder.close()
        state.service.timelines.close()
        for turnstile in (state.questions, state.uploads, state.timelines, state.small):
            turnstile.close()
        state.folder.close()


def _add_pages(app: FastAPI) -> None:
    manual: list[str] = []  # made when it is first asked for

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return page_response("index.html")

    @app.get("/static/{name}", include_in_schema=False)
    async def static(name: str) -> Response:
        return page_response(name)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        if not manual:
            manual.append(manual_of(app.openapi()))
        return HTMLResponse(manual[0])

    @app.get("/docs.css", include_in_schema=False)
    async def style() -> Response:
        return Response(STYLE, media_type="text/css")


async def _refuse(request: Request, error: Exception) -> Response:
    """Answer an error of the client in one line of JSON."""
    headers: dict[str, str] = {}
    content: dict[str, Any] = {}
    status = 500
    if isinstance(error, Refused):
        status, content["error"] = error.status, error.error
        if error.unknown is not None:
            content["unknown"] = list(error.unknown)
        if error.retry_after is not None:
            headers["Retry-After"] = str(error.retry_after)
    elif isinstance(error, RequestValidationError):
        status, content["error"] = 422, first_problem(error.errors())
    elif isinstance(error, HTTPException):
        status, headers = error.status_code, dict(error.headers or {})
        content["error"] = f"{request.url.path[:100]}: {error.detail}; see /docs"
    if request.method == "POST" and "expect" not in request.headers:
        await uploads.drain(request)
    return JSONResponse(content, status, headers)


async def _fail(request: Request, error: Exception) -> Response:
    """Answer a mistake of this program; the log has more."""
    return JSONResponse({"error": f"the server failed ({type(error).__name__}); see its log"}, 500)
