"""A gallery of queries and clips: pictures, spectrograms and short films in the page."""

from __future__ import annotations

import base64
import collections
import dataclasses
import io
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from markupsafe import Markup
from numpy.typing import NDArray

from fusion.data.media.decode import Decoder, open_media
from fusion.data.media.encode import encode_jpeg, write_clip
from fusion.data.media.log_mel import log_mel
from fusion.data.media.pictures import seen_size
from fusion.data.media.upright import upright
from fusion.data.media.window import read_audio, read_frames
from fusion.report.page import render
from fusion.words import number_of

logger = logging.getLogger(__name__)

ClipKey = tuple[str, float, float]
Verdict = tuple[Literal["hit", "near", "far"], str]  # a colour, and a few words

FRAMES_PER_SECOND = 10.0
SAMPLE_RATE = 16_000  # hertz
SECONDS = 8.0  # of a longer clip, its middle is shown
AREA = 160 * 120  # pixels of a frame, whatever its shape
BLACK = 32  # no value of a black picture is above it
SILENT = 1e-3  # no sample of a silent clip is louder: 60 dB below full scale
LOUDNESS_RANGE = 45.0  # decibels from the darkest to the brightest colour
# From quiet to loud: dark blue, violet, orange, pale yellow, as red, green, blue.
SOUND_COLOURS = np.array([[17, 17, 39], [87, 44, 122], [222, 104, 72], [252, 236, 168]])


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
    """What a gallery shows under one heading."""

    text: str  # the heading; may be empty
    verdict: Verdict
    cards: Sequence[tuple[str, GalleryResult]]  # clips in order, with a label each, such as a rank
    clip: GalleryResult | None = None  # what the model was asked about, if not among the cards


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
    clips = [(place, _key(clip)) for item in items for place, clip in enumerate(_clips(item))]
    uses = collections.Counter(key for _, key in clips)
    chosen: set[ClipKey] = set()
    for _, key in sorted(clips, key=lambda one: one[0]):
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


@dataclasses.dataclass(frozen=True)
class Snippet:
    """What a page shows of a clip: JPEG pictures and an mp4 film, empty if there is none."""

    poster: bytes = b""  # the frame in the middle
    strip: bytes = b""  # three frames side by side
    sound: bytes = b""  # the spectrogram, time from left to right
    player: bytes = b""  # picture, sound or both
    has_picture: bool = False  # and it is not black
    has_sound: bool = False  # and it is not silent
    readable: bool = True


def read_snippet(path: str | Path | None, start: float, end: float) -> Snippet:
    """Encode a clip from ``start`` to ``end`` seconds, or its middle, in some ten kilobytes.

    Never raises: a file that cannot be read gives a snippet that is not readable, and a warning,
    because one bad file must not stop the report after hours of training.
    """
    if path is None:
        return Snippet()
    try:
        excess = max(0.0, end - start - SECONDS) / 2
        return _read(path, start + excess, end - excess)
    except Exception as error:
        logger.warning("no thumbnail of %s, %.2f to %.2f s: %s", path, start, end, error)
        return Snippet(readable=False)


def _read(path: str | Path, start: float, end: float) -> Snippet:
    height, width = _frame_size(path)
    frames = read_frames(path, FRAMES_PER_SECOND, height, width, start, end)  # (T, H, W, 3)
    wave = read_audio(path, SAMPLE_RATE, start, end)  # (S,)
    poster = strip = sound = player = b""
    if len(frames):
        poster = encode_jpeg(frames[len(frames) // 2])
        strip = encode_jpeg(draw_strip(frames))
    has_sound = bool(len(wave) and np.abs(wave).max() > SILENT)
    if has_sound:
        sound = encode_jpeg(draw_sound(wave))
    if len(frames) or has_sound:
        buffer, heard = io.BytesIO(), wave if has_sound else None
        write_clip(buffer, frames, FRAMES_PER_SECOND, heard, SAMPLE_RATE, crf=30)
        player = buffer.getvalue()
    has_picture = bool(len(frames) and frames.max() > BLACK)
    return Snippet(poster, strip, sound, player, has_picture, has_sound)


def draw_strip(frames: NDArray[np.uint8], number: int = 3) -> NDArray[np.uint8]:
    """Put a number of the T frames (T, H, W, 3) side by side, at half their size, H and W even.

    They are spread evenly over the clip; returns (H / 2, number * W / 2, 3).
    """
    chosen = frames[[len(frames) * (2 * i + 1) // (2 * number) for i in range(number)]]
    n, height, width, _ = chosen.shape
    blocks = chosen.reshape(n, height // 2, 2, width // 2, 2, 3)
    small = blocks.mean(axis=(2, 4)).round().astype(np.uint8)  # (number, H / 2, W / 2, 3)
    return np.concatenate(list(small), axis=1)


def draw_sound(wave: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Draw the spectrogram of (S,) samples as (40, T, 3): low tones below, 50 columns a second."""
    enough = np.pad(wave, (0, max(0, SAMPLE_RATE // 10 - len(wave))))
    decibels = log_mel(torch.from_numpy(enough)).numpy()  # (T, 40), 100 per second
    decibels = decibels[: len(decibels) // 4 * 4].reshape(-1, 2, decibels.shape[1]).mean(axis=1)
    level = 1 + (decibels - decibels.max()) / LOUDNESS_RANGE  # 1 at the loudest
    stops = np.linspace(0, 1, len(SOUND_COLOURS))
    channels = [np.interp(level.T[::-1], stops, colour) for colour in SOUND_COLOURS.T]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def _frame_size(path: str | Path) -> tuple[int, int]:
    """Height and width with the proportions of the film: multiples of 4, about ``AREA``."""
    proportion = 4 / 3
    with open_media(path) as container:
        for stream, frame, _ in Decoder(container, ["video"]).frames():
            turned, _ = upright(frame)
            seen = seen_size(frame.width, frame.height, stream.sample_aspect_ratio, turned)
            proportion = seen[0] / seen[1]
            break
    proportion = min(max(proportion, 0.4), 2.5)
    height = math.sqrt(AREA / proportion)
    return round(height / 4) * 4, round(height * proportion / 4) * 4
