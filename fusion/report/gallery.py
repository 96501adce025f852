"""A gallery of queries and the clips they found: pictures, sound, and short films in the page."""

from __future__ import annotations

import base64
import collections
import dataclasses
import html
import logging
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fusion.report.snippets import SECONDS, Snippet, read_snippet
from fusion.words import number_of

logger = logging.getLogger(__name__)

EVENLY_CHOSEN = (  # what choose_examples does, for the reader of the page
    "Not picked by hand: all queries in the order of their right clip's rank, and from these, at "
    "even distances, a few from the best to the worst."
)
LONG_CAPTION = 160  # characters; the rest folds away

ClipKey = tuple[str, float, float]


@dataclasses.dataclass(frozen=True)
class GalleryResult:
    """One clip that a query found.

    Attributes:
        clip_id: its name in the data set.
        caption: what is said in it; may be empty or long.
        path: its media file; None if there is none to show.
        start: where the clip begins in the file, in seconds.
        end: where it ends, in seconds.
        score: similarity to the query; NaN if it is not known.
        is_right: whether it is the clip that the query belongs to.
    """

    clip_id: str
    caption: str
    path: str | Path | None
    start: float
    end: float
    score: float
    is_right: bool


@dataclasses.dataclass(frozen=True)
class GalleryQuery:
    """A query and its best clips.

    Attributes:
        text: the sentence that asks; empty if the query has no text.
        rank: of the right clip, the best is 1; None if the clip is not in what was searched.
        results: the best clips, best first.
        right: the right clip, shown apart where it is not among the results.
        clip: the clip that asks, where the query is seen or heard.
    """

    text: str
    rank: int | None
    results: list[GalleryResult]
    right: GalleryResult | None = None
    clip: GalleryResult | None = None

    def clips(self) -> list[GalleryResult]:
        """List every clip that is shown, those first whose player a reader would miss most."""
        apart = [clip for clip in (self.clip, self.right) if clip is not None]
        return apart + sorted(self.results, key=lambda clip: not clip.is_right)


def choose_examples(ranks: Sequence[float] | np.ndarray, number: int = 8) -> list[int]:
    """Choose queries evenly from the best to the worst, so that failures show in proportion.

    Args:
        ranks: (Q,) rank of each query's right clip, from 1; NaN or below 1 where it has none.
        number: how many to choose.

    Returns:
        At most ``number`` different indices, by rising rank; the worst query is the last.
    """
    values = np.asarray(ranks, dtype=float)
    order = np.argsort(values, kind="stable")
    order = order[values[order] >= 1]  # NaN is not
    places = np.linspace(0, len(order) - 1, min(number, len(order))).round().astype(int)
    return [int(index) for index in order[places]]


def make_gallery(queries: Sequence[GalleryQuery], budget: int, note: str = "") -> str:
    """Show queries and what they found, with pictures, films and sound read from the media files.

    Args:
        queries: in the order in which they are shown.
        budget: bytes of HTML. Pictures stay in any case; players are left out where they exceed
            it, those of the lower ranks first.
        note: how the queries were chosen, such as ``EVENLY_CHOSEN``.

    Returns:
        HTML; empty without queries.
    """
    if not queries:
        return ""
    snippets = _read_snippets([clip for query in queries for clip in query.clips()])
    pictures = "\n".join(_query(query, snippets, set()) for query in queries)
    players = _choose_players(queries, snippets, budget - len(pictures.encode()))
    num_players = sum(bool(snippet.player) for snippet in snippets.values())
    body = "\n".join(_query(query, snippets, players) for query in queries)
    note = f"{html.escape(note)} {_note(len(players), num_players)}"
    return f'<p class="note">{note}</p>\n{body}'


def _read_snippets(clips: Sequence[GalleryResult]) -> dict[ClipKey, Snippet]:
    """Read each clip once; what features were made of is often not there any more."""
    snippets, lost = {}, {}
    for clip in clips:
        if clip.path is not None and not Path(clip.path).exists():
            lost[clip.path] = snippets[_key(clip)] = Snippet(readable=False)
        elif _key(clip) not in snippets:
            snippets[_key(clip)] = read_snippet(clip.path, clip.start, clip.end)
    if lost:
        logger.warning(
            "no pictures of %s in the report: there is no %s; videos are looked for beside the"
            " caption file, and no setting names another folder",
            number_of(len(lost), "video"),
            next(iter(lost)),
        )
    return snippets


def _choose_players(
    queries: Sequence[GalleryQuery], snippets: Mapping[ClipKey, Snippet], room: int
) -> set[ClipKey]:
    """Take first the most important clip of each query, then the second of each, while they fit."""
    ranked = [(place, clip) for query in queries for place, clip in enumerate(query.clips())]
    uses = collections.Counter(_key(clip) for _, clip in ranked)
    chosen: set[ClipKey] = set()
    for _, clip in sorted(ranked, key=lambda item: item[0]):
        key = _key(clip)
        size = uses[key] * (len(_data_uri("video/mp4", snippets[key].player)) + 100)
        if key in chosen or not snippets[key].player:
            continue
        if size > room:
            break
        room -= size
        chosen.add(key)
    return chosen


def _note(num_players: int, wanted: int) -> str:
    if not wanted:
        return "Nothing here can be played: no clip has a media file with picture or sound."
    longest = f"of a clip longer than {SECONDS:g} s, its middle is shown"
    if num_players == wanted:
        return f"Every clip can be played; {longest}."
    return (
        f"{num_players} of {wanted} clips can be played, pictures of the others only: "
        f"more players would make this page too large. Players: {longest}."
    )


def _query(query: GalleryQuery, snippets: Mapping[ClipKey, Snippet], players: set[ClipKey]) -> str:
    def card(clip: GalleryResult, place: str) -> str:
        return _card(clip, place, snippets[_key(clip)], with_player=_key(clip) in players)

    asks = card(query.clip, "query") if query.clip else ""
    cards = [card(clip, f"{place}") for place, clip in enumerate(query.results, start=1)]
    if query.right and not any(clip.is_right for clip in query.results):
        cards.append(card(query.right, "?" if query.rank is None else f"{query.rank}"))
    text = ""
    if query.text:
        text = f'<div class="ask" role="heading" aria-level="3">{_caption(query.text)}</div>'
    return (
        f'<article class="query"><header>{text}{_verdict(query)}</header>'
        f"{f'<ul class=asks>{asks}</ul>' if asks else ''}"
        f'<ol class="results">{"".join(cards)}</ol></article>'
    )


def _verdict(query: GalleryQuery) -> str:
    if query.rank is None:
        return '<p class="verdict far">✗ the right clip is not in what was searched</p>'
    if query.rank == 1:
        return '<p class="verdict hit">✓ right clip first</p>'
    if any(clip.is_right for clip in query.results):
        return f'<p class="verdict near">right clip at rank {query.rank}</p>'
    return (
        f'<p class="verdict far">✗ right clip at rank {query.rank}, '
        f"not among the best {len(query.results)}</p>"
    )


def _card(clip: GalleryResult, place: str, snippet: Snippet, *, with_player: bool) -> str:
    right = '<b class="tick">✓ right clip</b>' if clip.is_right else ""
    is_known = math.isfinite(clip.score) and place != "query"
    score = f'<span class="score">{clip.score:.3f}</span>' if is_known else ""
    return (
        f'<li class="card{" right" if clip.is_right else ""}">'
        f'<p class="place"><b>{place}</b>{right}{score}</p>'
        f"{_screen(clip, snippet, with_player)}"
        f"{_image(snippet.strip, 'strip', 'three frames')}"
        f"{_image(snippet.sound, 'sound', 'spectrogram of the sound')}{_marks(snippet)}"
        f'<div class="caption">{_caption(clip.caption)}</div>'
        f'<p class="id">{html.escape(clip.clip_id)}</p></li>'
    )


def _screen(clip: GalleryResult, snippet: Snippet, with_player: bool) -> str:
    source = _data_uri("video/mp4", snippet.player)
    name = html.escape(f"clip {clip.clip_id}")
    if not snippet.poster:
        blank = "no picture" if snippet.readable else "cannot be read"
        audio = f'<audio controls preload="none" aria-label="{name}" src="{source}"></audio>'
        return f'<div class="screen blank">{blank}</div>{audio if with_player else ""}'
    poster = _image(snippet.poster, "screen", f"frame of clip {clip.clip_id}")
    if not with_player:
        return poster
    # Browsers darken a film to show its controls, so it waits folded away behind its picture.
    return (
        f'<details class="film"><summary title="play">{poster}</summary>'
        f'<video class="screen" controls preload="none" aria-label="{name}" src="{source}">'
        "</video></details>"
    )


def _marks(snippet: Snippet) -> str:
    if not snippet.readable:
        return ""
    marks = []
    if snippet.poster and not snippet.has_picture:
        marks.append("no picture")
    if not snippet.has_sound:
        marks.append("no sound")
    return "".join(f'<p class="mark">{mark}</p>' for mark in marks)


def _image(jpeg: bytes, kind: str, description: str) -> str:
    if not jpeg:
        return ""
    source = _data_uri("image/jpeg", jpeg)
    return f'<img class="{kind}" alt="{html.escape(description)}" src="{source}">'


def _caption(text: str) -> str:
    """Escape a text and fold away what is too long of it."""
    if len(text) <= LONG_CAPTION:
        return html.escape(text)
    begin = html.escape(textwrap.shorten(text[:LONG_CAPTION], LONG_CAPTION - 20, placeholder=""))
    return f'<details class="fold"><summary>{begin} …</summary>{html.escape(text)}</details>'


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _key(clip: GalleryResult) -> ClipKey:
    return str(clip.path), clip.start, clip.end
