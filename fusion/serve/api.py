"""The routes of the API: they read a request, and let :class:`.Service` answer it in a thread."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from fusion.serve import schemas, uploads
from fusion.serve.files import film_response, picture_response
from fusion.serve.schemas import Refused
from fusion.serve.service import Wish

MOST_HITS = 200
_NUMBER = 2**63 - 1  # largest that SQLite knows

Number = Annotated[int, Path(ge=0, le=_NUMBER)]
Words = Annotated[str, Field(max_length=2000)]
Top = Annotated[int, Field(ge=1, le=MOST_HITS, description="hits to return")]
Combinations = Annotated[
    str, Field(max_length=200, description="combinations to compare, such as v,a,va; empty: any")
]
FilmWish = Annotated[
    str, Field(max_length=1000, description="number of a film, or a part of its name")
]
EMPTY = BeforeValidator(lambda value: None if value == "" else value)  # an empty field of a form


class Form(BaseModel):
    """The fields of a question; its files are audio, picture and video."""

    model_config = ConfigDict(populate_by_name=True)

    words: Words = ""
    start: Annotated[float | None, Field(ge=0, allow_inf_nan=False), EMPTY] = None
    end: Annotated[float | None, Field(gt=0, allow_inf_nan=False), EMPTY] = None
    within: Combinations = Field("", alias="in")
    film: FilmWish = ""
    top: Top = 20


FILES = {
    "audio": "a sound, or a film whose sound is taken",
    "picture": "a picture",
    "video": "a film: its picture, and its sound unless audio is given",
}


def _form_schema(*fields: str, files: dict[str, str] = FILES) -> dict[str, Any]:
    """Describe the form for OpenAPI, with these fields alone, if any are named."""
    schema = Form.model_json_schema(by_alias=True)
    kept = {name: value for name, value in schema["properties"].items() if name in fields}
    schema["properties"] = kept or schema["properties"]
    for name, text in files.items():
        schema["properties"][name] = {"type": "string", "format": "binary", "description": text}
    return {"requestBody": {"content": {"multipart/form-data": {"schema": schema}}}}


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": schemas.Problem} for status in statuses}


router = APIRouter(responses=_problems(503))


@router.get("/api/about", summary="What the index has")
async def about(request: Request) -> schemas.About:
    """Give the numbers of films and clips, what can be searched in, and limits of uploads."""
    state = request.app.state
    found = await state.small.run(state.service.about)
    limits = schemas.Limits(upload_bytes=state.upload_bytes, upload_seconds=state.decoding.seconds)
    return schemas.About(**found, limits=limits, answers=state.asking is not None)


@router.get("/api/films", summary="The films")
async def films(
    request: Request, query: Annotated[str, Query(max_length=1000)] = ""
) -> list[schemas.FilmFacts]:
    """List all films, or those with ``query`` in their name."""
    state = request.app.state
    found = await state.small.run(state.service.films, query)
    return [schemas.FilmFacts(**film) for film in found]


@router.get("/api/search", summary="Search by words", responses=_problems(400, 404, 422))
async def search(
    request: Request,
    q: Annotated[Words, Query(description="the question")],
    within: Annotated[Combinations, Query(alias="in")] = "",
    film: FilmWish = "",
    top: Top = 20,
) -> schemas.Answer:
    """Find the clips that fit words best. A question without a known word has status 400."""
    state = request.app.state
    async with state.questions.turn():
        wish = read_wish(within, film, top)
        return schemas.Answer(**await state.questions.run(state.service.search, q, wish))


@router.post(
    "/api/search",
    summary="Search by words, sound, picture or film",
    openapi_extra=_form_schema(),
    responses=_problems(400, 404, 408, 413, 415, 422),
)
async def ask(request: Request) -> schemas.Answer:
    """Find the clips that fit words and files best; what is given counts together."""
    state = request.app.state
    async with (
        state.uploads.turn(),
        uploads.receive(request, state.folder.path, state.upload_bytes) as form,
    ):
        given = read_form(form.fields)
        wish = read_wish(given.within, given.film, given.top)
        times = given.start or 0.0, given.end
        answer = await state.uploads.run(state.service.ask, given.words, form.files, times, wish)
    return schemas.Answer(**answer)


@router.post(
    "/api/ask",
    summary="Ask about a picture, or a moment of a film",
    openapi_extra=_form_schema("words", "start", "film", files={"picture": "a picture"}),
    responses=_problems(400, 404, 408, 413, 415, 422, 501),
)
async def answer(request: Request) -> schemas.Replies:
    """Answer the question in words about a picture, or about film number film at second start."""
    state = request.app.state
    if state.asking is None:
        raise Refused(501, "no model answers questions here; start: fusion serve --questions RUN")
    async with (
        state.uploads.turn(),
        uploads.receive(request, state.folder.path, state.upload_bytes) as form,
    ):
        given = read_form(form.fields)
        if form.files:
            check_picture(form.files, given.film)
            work: tuple[Any, ...] = (state.asking.about_upload, given.words, form.files["picture"])
        else:
            path = await state.small.run(state.service.film_path, film_number(given.film))
            work = (state.asking.about_moment, given.words, path, given.start or 0.0)
        return schemas.Replies(**await state.uploads.run(*work))


@router.get(
    "/api/steps/{number}",
    summary="When steps happen in a film",
    responses=_problems(400, 404, 413, 422),
)
async def steps(
    request: Request,
    number: Number,
    step: Annotated[list[Words], Query(max_length=100, description="a step; several in order")],
    ordered: Annotated[bool, Query(description="whether they happen in their order")] = True,
) -> schemas.Timeline:
    """Find the second of each step in a film, and how well it fits every other second."""
    state = request.app.state
    async with state.timelines.turn():
        name = await state.small.run(state.service.film_name, number)
        path = await state.small.run(state.service.film_path, number)
        found = await state.timelines.run(state.service.timelines.find, path, step, ordered)
    return schemas.Timeline(film=schemas.FilmName(id=number, name=name), **found)


@router.get("/api/clips/{number}", summary="One clip", responses=_problems(404))
async def clip(request: Request, number: Number) -> schemas.ClipFacts:
    """Give a clip by its number."""
    state = request.app.state
    return schemas.ClipFacts(**await state.small.run(state.service.clip, number))


@router.get("/api/near/{number}", summary="Clips like a clip", responses=_problems(400, 404, 422))
async def near(
    request: Request,
    number: Number,
    within: Annotated[Combinations, Query(alias="in")] = "",
    film: FilmWish = "",
    top: Top = 20,
) -> schemas.Answer:
    """Find the clips that are most like a clip of the index."""
    state = request.app.state
    async with state.questions.turn():
        wish = read_wish(within, film, top)
        return schemas.Answer(**await state.questions.run(state.service.near, number, wish))


@router.get("/thumbnails/{number}", response_class=Response, responses=_problems(404))
async def thumbnail(
    request: Request, number: Number, v: Annotated[str, Query(max_length=20)] = ""
) -> Response:
    """Give the thumbnail of a clip, a JPEG."""
    state = request.app.state
    content = await state.small.run(state.service.thumbnail, number)
    return picture_response(content, v, request.headers.get("if-none-match", ""))


@router.head("/films/{number}", include_in_schema=False)
@router.get("/films/{number}", response_class=Response, responses=_problems(404, 416))
async def film(request: Request, number: Number) -> Response:
    """Give the media file of a film, or a range of it."""
    state = request.app.state
    path = await state.small.run(state.service.film_path, number)
    return await state.small.run(film_response, path)


@router.get("/healthz", summary="Whether the index and the model can be used")
async def health(request: Request) -> schemas.Health:
    """Give status 200, or 503 with the reason."""
    state = request.app.state
    return schemas.Health(**await state.small.run(state.service.health))


@router.get("/metrics", response_class=Response, summary="Figures for Prometheus")
async def metrics(request: Request) -> Response:
    """Give counts and times of requests, and the size of the index."""
    state = request.app.state
    content = await state.small.run(state.meters.text, state.service)
    return Response(content, media_type=state.meters.media_type)


def read_wish(within: str, film: str, top: int) -> Wish:
    """Read what a search is to return."""
    combinations = [part.strip() for part in within.split(",") if part.strip()]
    film = film.strip()
    if film.isascii() and film.isdigit():
        if int(film) > _NUMBER:
            raise Refused(404, f"the index has no film {film}")
        return Wish(top, combinations, int(film))
    return Wish(top, combinations, film or None)


def read_form(fields: dict[str, str]) -> Form:
    """Check the fields of a form; Refused (422): one is wrong."""
    try:
        return Form.model_validate(fields)
    except ValidationError as error:
        raise Refused(422, first_problem(error.errors())) from None


def check_picture(files: Iterable[str], film: str) -> None:
    """Check that a question is about one picture alone; Refused (422): it is not."""
    if {*files} != {"picture"} or film.strip():
        raise Refused(422, "ask about one picture, or about a film of the index and a second of it")


def film_number(film: str) -> int:
    """Read the number of the film of a question; Refused (422): there is none."""
    found = read_wish("", film, 1).film
    if not isinstance(found, int):
        raise Refused(422, "what is the question about? give a picture, or the number of a film")
    return found


def first_problem(errors: Any) -> str:
    """Write the first problem that pydantic found in one line."""
    place = [str(part) for part in errors[0]["loc"] if part not in ("query", "path", "body")]
    given = errors[0].get("input")
    shown = f"; got {str(given)[:60]!r}" if isinstance(given, str | int | float) else ""
    return f"{'.'.join(place)}: {errors[0]['msg']}{shown}"
