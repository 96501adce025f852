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
    writer.writerows(_row(caption) for caption in captions)
    write_atomically(Path(store) / FILE, table.getvalue())
    silent = [video for video, its in found.items() if not its]
    spoken = number_of(len(found) - len(silent), "video")
    parts = [f"{FILE}: {number_of(len(captions), 'caption')} of {spoken}"]
    parts.append(_strangers(Path(place), videos))
    if silent:
        named = ", ".join(silent[:3]) + (", …" if len(silent) > 3 else "")
        parts.append(f"{len(silent)} videos in the store have none ({named})")
    return "; ".join(filter(None, parts))


def _row(caption: Caption) -> tuple[str, float | str, float | str, str]:
    """Write a caption; of one about a whole video the times are empty."""
    times = ("", "") if caption.is_whole else (caption.start, caption.end)
    return caption.video, *times, caption.text


def _strangers(place: Path, videos: Sequence[str]) -> str:
    """Say what belongs to no video of the store."""
    if place.suffix.lower() in SUBTITLES and place.is_file():
        return ""  # a file of one video
    if place.is_dir():
        lost = [file.name for file in stranger_files(place, videos)]
        what = "caption files belong"
    else:
        ours = set(videos)
        lost = [c.video for c in read_all(place, ours) if c.video not in ours]
        what = "captions belong"
    if not lost:
        return ""
    named = ", ".join(list(dict.fromkeys(lost))[:3])
    return f"{len(lost)} {what} to no video in the store ({named}{', …' if len(lost) > 3 else ''})"
