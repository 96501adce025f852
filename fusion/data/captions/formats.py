"""Captions in all formats: one file in, its captions out."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from reprlib import repr as short
from typing import Any

from fusion.data.captions.subtitles import SUBTITLES, read_subtitles, split_language
from fusion.data.captions.table import (
    COLUMNS,
    WHOLE,
    Caption,
    CaptionError,
    find_columns,
    read_captions,
    read_text,
)

ONE_VIDEO = (*SUBTITLES, ".csv")  # files named like their video; the first is taken


def read_caption_file(path: str | Path, video: str | None = None) -> list[Caption]:
    """Read captions in the format that the file's ending names.

    ``.vtt`` and ``.srt`` hold the captions of one video, see :func:`read_subtitles`. ``.csv``: see
    :func:`read_captions`. ``.json`` holds one of

    * a list of ``{"video": …, "start": …, "end": …, "text": …}``, by these or other names of
      :data:`fusion.data.captions.table.COLUMNS`; without start and end about the whole video,
    * MSR-VTT's ``{"videos": …, "sentences": [{"video_id": …, "caption": …}, …]}``: captions of
      whole videos,
    * the layout of HowTo100M, see :func:`captions_by_video`.

    Args:
        path: a file in UTF-8, with or without byte order mark.
        video: the video of a subtitle file; by default the file's name without ending and language
            (``holiday`` for ``holiday.en.vtt``). Of the other formats, only its captions are read.

    Returns:
        Times in seconds. Nothing for a WebVTT file without captions: nothing is said.

    Raises:
        CaptionError: no such file, another format, an impossible time, or no caption at all.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending in SUBTITLES:
        return read_subtitles(path, video or split_language(path.stem)[0])
    if ending == ".json":
        captions = _read_json(path)
    elif ending == ".csv":
        captions = read_captions(path)
    else:
        raise CaptionError(
            f"{path}: captions cannot be read from {ending or 'a file without ending'}; "
            f"use .csv, .json, {', '.join(SUBTITLES)}"
        )
    chosen = [caption for caption in captions if video in (None, caption.video)]
    if not chosen:
        raise CaptionError(f"{path}: no captions of {video or 'any video'}; check the name")
    return chosen


def read_one_video(path: Path, video: str) -> list[Caption]:
    """Read a file of one video, see :func:`is_of_one_video`.

    Raises:
        CaptionError: see :func:`read_caption_file`.
    """
    if path.suffix.lower() in SUBTITLES:
        return read_subtitles(path, video)
    return read_captions(path, video)


def is_of_one_video(path: Path) -> bool:
    """Tell whether a file has the captions of the video of its name: subtitles, or a csv file.

    A csv file, such as those of HowTo100M (``start,end,text``), must have no column that names
    videos, and times: in a folder, others are lists of something else.
    """
    if path.suffix.lower() in SUBTITLES:
        return True
    # What is wrong with a file is said when it is read.
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        header = file.readline()
    found = find_columns([name.strip() for name in header.split(",")])
    return "video" not in found and {"start", "end", "text"} <= found.keys()


def captions_by_video(
    data: Mapping[str, Any], source: str | Path
) -> Iterator[tuple[str, list[Caption]]]:
    """Go through the layout of HowTo100M's ``caption.json`` and ``caption.pickle``.

    Args:
        data: by video a mapping with ``start``, ``end`` (seconds) and ``text``, equally long lists.
        source: what an error begins with.

    Yields:
        Each video with its captions, sorted by start.

    Raises:
        CaptionError: another layout, or an impossible value.
    """
    for video, columns in data.items():
        where = f"{source}, video {short(video)}"
        try:
            rows = list(zip(*(columns[name] for name in ("start", "end", "text")), strict=True))
        except (TypeError, LookupError, ValueError) as error:
            raise CaptionError(
                f"{where}: {short(columns)} must be lists start, end, text of one length"
            ) from error
        captions = [_caption(f"{where}, caption {i}", video, *row) for i, row in enumerate(rows, 1)]
        yield video, sorted(captions, key=lambda caption: caption.start)


def _read_json(path: Path) -> list[Caption]:
    text = read_text(path)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CaptionError(f"{path}: not JSON ({error}); check the file") from error
    if isinstance(data, dict) and isinstance(data.get("sentences"), list):
        # The times in its "videos" are those of the clips in the films they were cut from.
        return _rows(data["sentences"], f"{path}, sentence")
    if isinstance(data, dict):
        return [caption for _, captions in captions_by_video(data, path) for caption in captions]
    if not isinstance(data, list):
        raise CaptionError(f"{path}: {short(data)} is neither a list nor a mapping of captions")
    return _rows(data, f"{path}, entry")


def _rows(rows: Sequence[Any], where: str) -> list[Caption]:
    """Read a list of captions; ``where`` and the number of one begin the message."""
    captions = []
    for i, row in enumerate(rows, 1):
        names = find_columns(list(row)) if isinstance(row, dict) else {}
        if not {"video", "text"} <= names.keys() or len(names.keys() & {"start", "end"}) == 1:
            raise CaptionError(
                f"{where} {i}: {short(row)} needs video, start, end, text; without both of start"
                " and end it is about the whole video"
            )
        values = [row[names[column]] if column in names else None for column in COLUMNS]
        captions.append(_caption(f"{where} {i}", *values))
    return captions


def _caption(where: str, video: Any, start: Any, end: Any, text: Any) -> Caption:
    """Make a caption of what JSON holds; ``where`` begins the message."""
    for name, value in {"video": video, "text": text}.items():
        if not isinstance(value, str) or not (value.strip() or name == "text"):
            raise CaptionError(f"{where}: {name} is {short(value)}; put it in quotes")
    if start is None and end is None:
        return Caption(video.strip(), *WHOLE, " ".join(text.split()))
    try:
        first, last = float(start), float(end)
    except (TypeError, ValueError, OverflowError):
        first = last = math.nan
    if not 0 <= first < last < math.inf:
        raise CaptionError(
            f"{where}: start is {short(start)}, end is {short(end)}; they must be seconds from 0 "
            "on, the end after the start"
        )
    return Caption(video.strip(), first, last, " ".join(text.split()))
