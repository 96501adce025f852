"""Captions of the videos in a store, written beside their features."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from fusion.data.captions import Caption
from fusion.data.subtitles import SUBTITLES, find_captions, read_caption_file
from fusion.files import write_atomically

FILE = "captions.csv"


def write_captions(store: str | Path, place: str | Path, videos: Sequence[str]) -> str:
    """Write ``captions.csv``, with columns video, start, end, text, into the folder of a store.

    Args:
        store: the folder.
        place: a folder of subtitle files, or a caption file.
        videos: those that are in the store, and may be named in it.

    Returns:
        One line that says what has captions and what has none.

    Raises:
        CaptionError: a file cannot be read, it is not clear which video is meant, or no video has
            captions.
        OSError: the file cannot be written.
    """
    found = find_captions(place, videos)
    captions = [caption for video in found.values() for caption in video]
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["video", "start", "end", "text"])
    writer.writerows([c.video, c.start, c.end, c.text] for c in captions)
    write_atomically(Path(store) / FILE, table.getvalue())
    silent = [video for video, its in found.items() if not its]
    parts = [f"{FILE}: {len(captions)} captions of {len(found) - len(silent)} videos"]
    parts.append(_strangers(Path(place), videos, captions))
    if silent:
        named = ", ".join(silent[:3]) + (", …" if len(silent) > 3 else "")
        parts.append(f"{len(silent)} videos in the store have none ({named})")
    return "; ".join(filter(None, parts))


def _strangers(place: Path, videos: Sequence[str], used: Sequence[Caption]) -> str:
    """Say what belongs to no video of the store."""
    if place.suffix.lower() in SUBTITLES and place.is_file():
        return ""  # a file of one video
    if place.is_dir():
        names = {name for v in map(Path, videos) for name in (v.name, v.stem)}
        files = [p for p in place.rglob("*") if p.suffix.lower() in SUBTITLES and p.is_file()]
        lost = [p.name for p in files if not names & _possible_names(p.name)]
        what = "subtitle files belong"
    else:
        ours = {caption.video for caption in used}
        names = {name for v in map(Path, ours) for name in _names_of(v)}
        lost = [c.video for c in read_caption_file(place) if c.video not in names]
        what = "captions belong"
    if not lost:
        return ""
    named = ", ".join(list(dict.fromkeys(lost))[:3])
    return f"{len(lost)} {what} to no video in the store ({named}{', …' if len(lost) > 3 else ''})"


def _possible_names(file: str) -> set[str]:
    """Name the videos that a subtitle file may be of: ``a.en`` and ``a`` of ``a.en.vtt``."""
    parts = file.split(".")
    return {".".join(parts[:end]) for end in range(1, len(parts))}


def _names_of(video: Path) -> tuple[str, ...]:
    """Name a video in all the ways that a caption file may."""
    return video.as_posix(), video.name, video.stem, video.with_suffix("").as_posix()
