"""The web application: the page, the API, and what is common to all answers."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, File, Form, Query, Request, UploadFile
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from fusion.serve import schemas
from fusion.serve.refusal import Refused
from fusion.serve.service import Service, Wish

PAGE = Path(__file__).parent / "page"
LIMITS = {"upload_bytes": 200 * 2**20, "upload_seconds": 120.0}


def create_app(index: Any) -> FastAPI:
    """Make the application of an index."""
    app = FastAPI(title="fusion", docs_url=None, redoc_url=None)
    service = Service(index)

    @app.exception_handler(Refused)
    async def refuse(_: Request, error: Refused) -> JSONResponse:
        content = {"error": error.error}
        if error.unknown is not None:
            content["unknown"] = error.unknown
        return JSONResponse(content, error.status)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> Response:
        if not (PAGE / "index.html").exists():
            return HTMLResponse("no page yet")
        return FileResponse(PAGE / "index.html", media_type="text/html")

    @app.get("/static/{name}", include_in_schema=False)
    async def static(name: str) -> Response:
        if name not in {file.name for file in PAGE.glob("*")}:
            raise Refused(404, f"there is no {name}")
        return FileResponse(PAGE / name)

    @app.get("/api/about")
    async def about() -> schemas.About:
        found = await run_in_threadpool(service.about)
        return schemas.About(**found, limits=schemas.Limits(**LIMITS))

    @app.get("/api/films")
    async def films(query: str = "") -> list[schemas.FilmFacts]:
        return await run_in_threadpool(service.films, query)

    @app.get("/api/search")
    async def search(
        q: str, within: Annotated[str, Query(alias="in")] = "", film: str = "", top: int = 20
    ) -> schemas.Answer:
        return await run_in_threadpool(service.words, q, wish(within, film, top))

    @app.post("/api/search")
    async def ask(
        words: Annotated[str, Form()] = "",
        audio: Annotated[UploadFile | None, File()] = None,
        picture: Annotated[UploadFile | None, File()] = None,
        video: Annotated[UploadFile | None, File()] = None,
        start: Annotated[float, Form()] = 0.0,
        end: Annotated[float | None, Form()] = None,
        within: Annotated[str, Form(alias="in")] = "",
        film: Annotated[str, Form()] = "",
        top: Annotated[int, Form()] = 20,
    ) -> schemas.Answer:
        parts: dict[str, Any] = {"text": words} if words else {}
        with tempfile.TemporaryDirectory() as folder:
            for name, file in (("audio", audio), ("video", video), ("picture", picture)):
                if file is None:
                    continue
                path = Path(folder) / name
                path.write_bytes(await file.read())
                if name == "picture":
                    from PIL import Image

                    parts["video"] = Image.open(path)
                else:
                    parts[name] = path
                    if name == "video":
                        parts.setdefault("audio", path)
            return await run_in_threadpool(
                service.media, parts, (start, end), wish(within, film, top)
            )

    @app.get("/api/clips/{number}")
    async def clip(number: int) -> schemas.ClipFacts:
        return await run_in_threadpool(service.clip, number)

    @app.get("/api/near/{number}")
    async def near(
        number: int,
        within: Annotated[str, Query(alias="in")] = "",
        film: str = "",
        top: int = 20,
    ) -> schemas.Answer:
        return await run_in_threadpool(service.near, number, wish(within, film, top))

    @app.get("/thumbnails/{number}", response_class=Response)
    async def thumbnail(number: int) -> Response:
        content = await run_in_threadpool(service.thumbnail, number)
        return Response(content, media_type="image/jpeg")

    @app.api_route("/films/{number}", methods=["GET", "HEAD"], response_class=Response)
    async def film(number: int) -> Response:
        return FileResponse(await run_in_threadpool(service.film_path, number))

    @app.get("/healthz")
    async def health() -> schemas.Health:
        found = await run_in_threadpool(service.about)
        return schemas.Health(ok=True, films=found["films"], clips=found["clips"])

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        return Response("", media_type="text/plain")

    @app.get("/docs", response_class=HTMLResponse, include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse("not written yet")

    return app


def wish(within: str, film: str, top: int) -> Wish:
    parts = [part.strip() for part in within.split(",") if part.strip()]
    return Wish(top, parts, (int(film) if film.isdigit() else film) if film else None)
