"""Captions of the videos in a store, written beside their features."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from fusion.data.captions.match import find_captions, read_all, stranger_files
from fusion.data.captions.subtitles import SUBTITLES
from fusion.files import write_atomically
from fusion.words import number_of

FILE = "captions.csv"


def write_captions(store: str | Path, place: str | Path, videos: Sequence[str]) -> str:
    """Write ``captions.csv``, with columns video, start, end, text, into the folder of a store.

    Captions of whole videos have neither start nor end. ``place`` is a folder of caption files or a
    caption file; errors are those of :func:`find_captions`. Returns one line that counts captions
    and names videos without any.
    """
    found = find_captions(place, videos)
    captions = [caption for video in found.values() for caption in video]
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["video", "start", "end", "text"])
    for c in captions:
        writer.writerow([c.video, *(("", "") if c.is_whole else (c.start, c.end)), c.text])
    write_atomically(Path(store) / FILE, table.getvalue())
    without = [video for video, its in found.items() if not its]
    described = number_of(len(found) - len(without), "video")
    parts = [f"{FILE}: {number_of(len(captions), 'caption')} of {described}"]
    parts += _strangers(Path(place), videos)
    if without:
        have = "has" if len(without) == 1 else "have"
        lacking = number_of(len(without), "video")
        parts.append(f"{lacking} in the store {have} none ({_named(without)})")
    return "; ".join(parts)


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
