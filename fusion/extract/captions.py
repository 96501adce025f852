"""Captions of the videos in a store, written beside their features."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from fusion.data.captions.match import find_captions, read_all, stranger_files
from fusion.data.captions.subtitles import SUBTITLES
from fusion.data.captions.table import Caption
from fusion.files import write_atomically
from fusion.words import number_of

FILE = "captions.csv"


def write_captions(store: str | Path, place: str | Path, videos: Sequence[str]) -> str:
    """Write ``captions.csv``, with columns video, start, end, text, into the folder of a store.

    Captions of whole videos have neither start nor end.

    Args:
        store: the folder.
        place: a folder of caption files, or a caption file, see :func:`find_captions`.
        videos: the names of the videos in the store.

    Returns:
        One line that counts captions, and names videos without any.

    Raises:
        CaptionError: a file cannot be read, a name fits several videos, or no video has captions.
        OSError: the file cannot be written.
    """
    found = find_captions(place, videos)
    captions = [caption for video in found.values() for caption in video]
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["video", "start", "end", "text"])
    writer.writerows(_row(caption) for caption in captions)
    write_atomically(Path(store) / FILE, table.getvalue())
    without = [video for video, its in found.items() if not its]
    described = number_of(len(found) - len(without), "video")
    parts = [f"{FILE}: {number_of(len(captions), 'caption')} of {described}"]
    parts += _strangers(Path(place), videos)
    if without:
        have = (
            "video in the store has none" if len(without) == 1 else "videos in the store have none"
        )
        parts.append(f"{len(without)} {have} ({_named(without)})")
    return "; ".join(parts)


def _row(caption: Caption) -> tuple[str, float | str, float | str, str]:
    """Write a caption; a caption of a whole video has empty times."""
    times = ("", "") if caption.is_whole else (caption.start, caption.end)
    return caption.video, *times, caption.text


def _strangers(place: Path, videos: Sequence[str]) -> list[str]:
    """Name the caption files, or the captions, that belong to no video of the store."""
    if place.is_dir():
        lost, what = [file.name for file in stranger_files(place, videos)], "caption file"
    elif place.suffix.lower() in SUBTITLES:  # of one video
        return []
    else:
        ours = set(videos)
        lost, what = [c.video for c in read_all(place, ours) if c.video not in ours], "caption"
    belong = "belongs" if len(lost) == 1 else "belong"
    text = f"{number_of(len(lost), what)} {belong} to no video in the store"
    return [f"{text} ({_named(list(dict.fromkeys(lost)))})"] if lost else []


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
