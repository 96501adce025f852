"""Captions in all formats: one file in, its captions out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from reprlib import repr as short
from typing import Any

from fusion.data.captions import table
from fusion.data.captions.subtitles import SUBTITLES, read_subtitles, split_language
from fusion.data.captions.table import Caption, CaptionError, CaptionParser
from fusion.data.features.problems import MAX_BAD
from fusion.data.untrusted.pickle import load_pickle


def read_caption_file(
    path: str | Path, video: str | None = None, max_bad: float = MAX_BAD
) -> list[Caption]:
    """Read captions in the format that the file's ending names.

    ``.vtt`` and ``.srt`` hold the captions of one video, see :func:`read_subtitles`. ``.csv``: see
    :func:`read_csv`. ``.json`` holds one of

    * a list of ``{"video": …, "start": …, "end": …, "text": …}``, by these or other names of
      :data:`fusion.data.captions.table.COLUMNS`; without start and end about the whole video,
    * MSR-VTT's ``{"videos": …, "sentences": [{"video_id": …, "caption": …}, …]}``: captions of
      whole videos,
    * the layout of HowTo100M, see :func:`captions_by_video`.

    Args:
        path: a file in UTF-8, with or without byte order mark.
        video: the video of a subtitle file; by default the file's name without ending and language
            (``holiday`` for ``holiday.en.vtt``). Of the other formats, only its captions are read.
        max_bad: the share of captions that may be bad, see :class:`CaptionParser`.

    Raises:
        CaptionError: no such file, another format, too many bad captions, or none at all. Only
            a WebVTT file may have no captions.
    """
    path, parser = Path(path), CaptionParser(max_bad)
    ending = path.suffix.lower()
    if ending in SUBTITLES:
        captions = read_subtitles(path, parser, video or split_language(path.stem)[0])
    elif ending == ".json":
        captions = _read_json(path, parser)
    elif ending == ".csv":
        captions = table.read_csv(path, parser)
    else:
        raise CaptionError(
            f"{path}: captions cannot be read from {ending or 'a file without ending'}; "
            f"use .csv, .json, {', '.join(SUBTITLES)}"
        )
    parser.check()
    chosen = [caption for caption in captions if video in (None, caption.video)]
    if not chosen and ending not in SUBTITLES:
        raise CaptionError(f"{path}: no captions of {video or 'any video'}; check the name")
    return chosen


def read_by_video(path: Path, parser: CaptionParser) -> Iterator[tuple[str, list[Caption]]]:
    """Read HowTo100M's ``caption.pickle``, or the same as JSON, see :func:`captions_by_video`."""
    content = _load_json(path) if path.suffix == ".json" else load_pickle(path)
    if not isinstance(content, dict):
        raise CaptionError(f"{path} does not hold the captions of each video")
    yield from captions_by_video(content, path, parser)


def captions_by_video(
    data: Mapping[Any, Any], source: str | Path, parser: CaptionParser
) -> Iterator[tuple[str, list[Caption]]]:
    """Go through HowTo100M's layout; yields each video with its captions, sorted by start.

    ``data`` has for each video ``start`` and ``end`` (seconds) and ``text``, lists of one length.
    """
    for video, columns in data.items():
        name, where = str(video), f"{source}, video {short(video)}"
        try:
            rows = list(zip(*(columns[key] for key in ("start", "end", "text")), strict=True))
        except (TypeError, LookupError, ValueError) as error:
            raise CaptionError(
                f"{where}: {short(columns)} must be lists start, end, text of one length"
            ) from error
        place = f"{where}, caption"
        captions = [
            caption
            for i, (start, end, text) in enumerate(rows, 1)
            if (caption := parser.parse(place, i, name, start, end, _line(text)))
        ]
        yield name, sorted(captions, key=lambda caption: caption.start)


def _load_json(path: Path) -> Any:
    text = table.read_text(path)
    if not text.strip():
        raise CaptionError(f"{path}: the file is empty; make or download it again")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CaptionError(f"{path}: not JSON ({error}); check the file") from error


def _read_json(path: Path, parser: CaptionParser) -> list[Caption]:
    data = _load_json(path)
    if isinstance(data, dict) and isinstance(data.get("sentences"), list):
        # The times in its "videos" are those of the clips in the films they were cut from.
        return _read_list(data["sentences"], f"{path}, sentence", parser)
    if isinstance(data, dict):
        return [c for _, captions in captions_by_video(data, path, parser) for c in captions]
    if isinstance(data, list):
        return _read_list(data, f"{path}, entry", parser)
    raise CaptionError(f"{path}: {short(data)} is neither a list nor a mapping of captions")


def _read_list(rows: Sequence[Any], where: str, parser: CaptionParser) -> list[Caption]:
    captions = []
    for i, row in enumerate(rows, 1):
        names = table.find_columns(list(row)) if isinstance(row, dict) else {}
        if not {"video", "text"} <= names.keys() or len(names.keys() & {"start", "end"}) == 1:
            raise CaptionError(
                f"{where} {i}: {short(row)} needs video, start, end, text; without both of start"
                " and end it is about the whole video"
            )
        video, start, end, text = (row[names[c]] if c in names else None for c in table.COLUMNS)
        captions.append(parser.parse(where, i, _line(video), start, end, _line(text)))
    return [caption for caption in captions if caption]


def _line(text: Any) -> Any:
    return " ".join(text.split()) if isinstance(text, str) else text
