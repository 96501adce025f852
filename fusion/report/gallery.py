"""A gallery of queries and clips, with pictures, sound, and short films in the page."""

from __future__ import annotations

import base64
import collections
import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from markupsafe import Markup

from fusion.report.page import render
from fusion.report.snippets import SECONDS, Snippet, read_snippet
from fusion.words import number_of

logger = logging.getLogger(__name__)

ClipKey = tuple[str, float, float]
Verdict = tuple[Literal["hit", "near", "far"], str]  # the colour, and a few words


@dataclasses.dataclass(frozen=True)
class GalleryResult:
    """One clip, from ``start`` to ``end`` seconds of a media file (None: there is none).

    ``score`` is the model's, such as the similarity to the query; NaN if there is none.
    """

    clip_id: str
    caption: str
    path: str | Path | None
    start: float
    end: float
    score: float
    is_right: bool


@dataclasses.dataclass(frozen=True)
class GalleryItem:
    """What a gallery shows under one heading.

    Attributes:
        text: heading; may be empty.
        verdict: how good the model was.
        cards: clips to show, in order, with a label each, such as the rank.
        clip: the clip that the model was asked about, if it is not among the cards.
    """

    text: str
    verdict: Verdict
    cards: Sequence[tuple[str, GalleryResult]]
    clip: GalleryResult | None = None


def make_gallery(items: Sequence[GalleryItem], budget: int, note: str = "") -> Markup:
    """Show items with pictures, films and sound read from the media files; empty without items.

    Pictures always stay. Players that exceed the ``budget`` of bytes of HTML are left out, those of
    less important clips first. ``note`` says how the items were chosen.
    """
    if not items:
        return Markup()
    snippets = _read_snippets([clip for item in items for clip in _clips(item)])

    def write(players: set[ClipKey]) -> Markup:
        shown = sum(bool(snippet.player) for snippet in snippets.values())
        played = {"players": players, "wanted": shown, "seconds": SECONDS, "note": note}
        return render("gallery.html", items=items, snippets=snippets, key=_key, uri=_uri, **played)

    room = budget - len(write(set()).encode())
    return write(_choose_players(items, snippets, room))


def _clips(item: GalleryItem) -> list[GalleryResult]:
    """List the clips of an item, the most important first: the query's own, then the right one."""
    cards = sorted((clip for _, clip in item.cards), key=lambda clip: not clip.is_right)
    return cards if item.clip is None else [item.clip, *cards]


def _read_snippets(clips: Sequence[GalleryResult]) -> dict[ClipKey, Snippet]:
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
    items: Sequence[GalleryItem], snippets: Mapping[ClipKey, Snippet], room: int
) -> set[ClipKey]:
    """Take the most important clip of each item, then the second of each, while they fit."""
    ranked = [(place, _key(clip)) for item in items for place, clip in enumerate(_clips(item))]
    uses = collections.Counter(key for _, key in ranked)
    chosen: set[ClipKey] = set()
    for _, key in sorted(ranked, key=lambda one: one[0]):
        if key in chosen or not snippets[key].player:
            continue
        size = uses[key] * (len(_uri("video/mp4", snippets[key].player)) + 250)
        if size > room:
            break
        room -= size
        chosen.add(key)
    return chosen


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _key(clip: GalleryResult) -> ClipKey:
    return str(clip.path), clip.start, clip.end
