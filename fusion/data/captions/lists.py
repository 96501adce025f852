"""Lists of videos, such as the splits of a data set, and the captions of the videos in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fusion.data.captions.guess import Guesses
from fusion.data.captions.match import find_owners, owner_of
from fusion.data.captions.rows import COLUMNS, find_columns, read_table
from fusion.data.captions.table import Caption, CaptionError
from fusion.data.features.problems import name_some, tolerate


def read_video_list(path: str | Path) -> list[str]:
    """Read a list of videos, such as MSR-VTT's training splits, in its order, each once.

    It is a csv file with a column video, video_id or video_path, or has a name on each line.
    """
    guesses = Guesses()
    read = read_table(path, guesses, lists=True)
    guesses.say()
    rows = [[field.strip() for field in row] for _, row in read.rows]
    header = rows[0] if rows else []
    name = find_columns(header).get("video")
    if name is None and len(header) > 1:
        raise CaptionError(
            f"{path}, line 1: none of {', '.join(header)} names the videos; call that column"
            f" {' or '.join(COLUMNS['video'])}, or write a name on each line"
        )
    column = 0 if name is None else header.index(name)
    names = [row[column] for row in rows[name is not None :] if len(row) > column]
    if not any(names):
        raise CaptionError(f"{path}: no videos; write a name on each line")
    return list(dict.fromkeys(filter(None, names)))


def keep_listed(
    captions: Sequence[Caption], path: str | Path, source: str | Path, max_bad: float
) -> list[Caption]:
    """Keep the captions of the videos in a list, and warn of videos in it that have none.

    ``path`` is the list, see :func:`read_video_list`, and ``source`` is where the captions come
    from. ValueError: more than the share ``max_bad`` of the listed videos have no captions.
    """
    listed = read_video_list(path)
    owners = find_owners(caption.video for caption in captions)
    found = {name: owner_of(name, owners, path) for name in listed}
    if lost := [name for name, video in found.items() if video is None]:
        said = (
            f"{path}: {len(lost)} of {len(listed)} videos have no captions in {source}"
            f" ({name_some(lost)})"
        )
        tolerate(said, len(lost) / len(listed), "leave_out", max_bad)
    kept = set(found.values())
    return [caption for caption in captions if caption.video in kept]
