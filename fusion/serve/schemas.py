"""What the API answers, as pydantic models, and a refusal to answer."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, Field


class FilmName(BaseModel):
    """A film, as a hit names it."""

    id: int = Field(description="stable number of the film; /films/ID is its media file")
    name: str = Field(description="short name; no path of the machine")


class FilmFacts(FilmName):
    """A film of the index."""

    seconds: float = Field(description="how long it is")
    clips: int = Field(description="how many clips of it the index has")


class ClipFacts(BaseModel):
    """A clip of the index."""

    id: int = Field(description="stable number of the clip")
    film: FilmName
    start: float = Field(description="second of the film where the clip begins")
    end: float = Field(description="second where it ends")
    text: str = Field(description="of its captions; may be empty")
    thumbnail: str | None = Field(description="address of a JPEG; null without picture")
    media: str = Field(description="address of the film's media file")


class Hit(ClipFacts):
    """A clip that answers a question."""

    score: float = Field(description="cosine of the combination that was compared")
    calibrated: float = Field(description="hits are sorted by it: cosines made comparable")
    by: dict[str, float] = Field(
        description="cosine of each modality alone, by its name: text, video, audio"
    )


class Answer(BaseModel):
    """The answer of a search."""

    hits: list[Hit]
    unknown: list[str] = Field(description="words of the question that were left out")
    notes: list[str] = Field([], description="what else the question lost, one line each")
    seconds: float = Field(description="how long the server took")


class Reply(BaseModel):
    """An answer to a question about a picture, with its probability."""

    answer: str
    probability: float = Field(description="among all answers that the model can give, 0 to 1")


class Replies(BaseModel):
    """The answers to a question about a picture."""

    answers: list[Reply] = Field(description="the best ones, at most five, the best first")
    picture: str = Field(description="what was asked about: a JPEG file as base64")
    attention: str | None = Field(
        description="the same, dark where the question did not look; null if that is not known"
    )
    seconds: float = Field(description="how long the server took")


class Step(BaseModel):
    """A step that was looked for in a film."""

    step: str
    start: float | None = Field(description="second where it happens; null: not found")
    end: float | None
    score: float | None = Field(description="how well it fits there")
    curve: list[tuple[float, float | None]] = Field(
        description="over the film: second, and how well the step fits; null: nothing is known"
    )


class Timeline(BaseModel):
    """When steps happen in a film."""

    film: FilmName
    duration: float = Field(description="seconds of the film that were looked at")
    steps: list[Step]
    unknown: list[str] = Field(description="words of the steps that were left out")
    seconds: float = Field(description="how long the server took")


class Limits(BaseModel):
    """What an upload may be at most."""

    upload_bytes: int = Field(description="of all files of a question together")
    upload_seconds: float = Field(description="of sound or film in each file")


class About(BaseModel):
    """What the index has."""

    films: int
    clips: int
    combinations: list[str] = Field(description="what can be searched in, such as v, a, va")
    modalities: list[str] = Field(description="names: text, video, audio")
    words: dict[str, str] = Field(description="what the page calls a modality: said, seen, heard")
    version: str = Field(description="changes whenever the index changes")
    answers: bool = Field(description="whether questions about pictures are answered")
    steps: bool = Field(description="whether steps can be looked for in films")
    limits: Limits


class Health(BaseModel):
    """The index and the model can be used."""

    ok: bool
    films: int
    clips: int


class Problem(BaseModel):
    """Any error."""

    error: str = Field(description="one line: what is wrong, and the way out")
    unknown: list[str] | None = Field(None, description="words that the model does not know")


class Refused(Exception):
    """A request cannot be answered.

    Args:
        status: of HTTP.
        error: one line.
        unknown: words of the question that the model does not know.
        retry_after: seconds after which it is worth to ask again.
    """

    def __init__(
        self,
        status: int,
        error: str,
        unknown: Sequence[str] | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(error)
        self.status, self.error = status, " ".join(error.split())
        self.unknown, self.retry_after = unknown, retry_after
