"""Lists of videos, such as MSR-VTT's training splits, and the captions of the videos in one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fusion.data.captions.names import find_owners, owner_of
from fusion.data.captions.table import COLUMNS, Caption, CaptionError, find_columns, read_table
from fusion.data.features.problems import judge, name_some


def read_video_list(path: str | Path) -> list[str]:
    """Read which videos are listed, in the order of the file, each once.

    Args:
        path: csv with a column video, video_id or video_path, or a name on each line.

    Raises:
        CaptionError: no such file, no name in it, or several columns of which none names videos.
    """
    rows = [(number, [field.strip() for field in row]) for number, row in read_table(path)]
    header = rows[0][1] if rows else []
    name = find_columns(header).get("video")
    column = None if name is None else header.index(name)
    if column is None and len(header) > 1:
        raise CaptionError(
            f"{path}, line 1: no column {' or '.join(COLUMNS['video'])} among {', '.join(header)};"
            " name the column of the videos so, or write a name on each line"
        )
    names = [row[column or 0] for _, row in rows[column is not None :] if len(row) > (column or 0)]
    if not any(names):
        raise CaptionError(f"{path}: no videos; write a name on each line")
    return list(dict.fromkeys(filter(None, names)))


def keep_listed(
    captions: Sequence[Caption], path: str | Path, source: str | Path, most: float
) -> list[Caption]:
    """Take the captions of the videos in a list and warn of those in it that have none.

    Args:
        captions: of any videos.
        path: the list, see :func:`read_video_list`.
        source: where the captions come from, for the message.
        most: the share of the listed videos that may have none.

    Raises:
        ValueError: the list cannot be read, more have none, or a name may mean several videos.
    """
    listed = read_video_list(path)
    owners = find_owners(caption.video for caption in captions)
    found = {name: owner_of(name, owners, path) for name in listed}
    lost = [name for name, video in found.items() if video is None]
    if lost:
        said = (
            f"{path}: {len(lost)} of {len(listed)} videos have no captions in {source}"
            f" ({name_some(lost)})"
        )
        judge(said, len(lost) / len(listed), most, "leave_out")
    kept = set(found.values())
    return [caption for caption in captions if caption.video in kept]
