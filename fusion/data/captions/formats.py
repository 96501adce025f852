"""Captions in all formats: one file in, its captions out.

WebVTT is read as https://www.w3.org/TR/webvtt1/ says, without its layout. Libraries (webvtt-py,
pysubs2, srt) skip captions that they cannot read without a message, or stop without a line number;
here an error names the place.
"""

from __future__ import annotations

import dataclasses
import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from reprlib import repr as short
from typing import Any

from fusion.data.captions import table
from fusion.data.captions.rows import COLUMNS, find_columns, read_text
from fusion.data.captions.table import Caption, CaptionError, CaptionParser, NoCaptionsError
from fusion.data.features.problems import MAX_BAD
from fusion.data.untrusted.pickle import load_pickle

SUBTITLES = (".vtt", ".srt")  # the first is taken where there are both

_TIME = r"(?:([0-9]{1,6}):)?([0-9]{1,6}):([0-9]{1,2})(?:[.,]([0-9]{1,9}))?"
_TIMES = re.compile(rf"\s*({_TIME})\s*-->\s*({_TIME})(?:\s.*)?$")
_WORD_TIME = re.compile(r"<[0-9]+:[0-9:.]+>")
# Tags, times of words, and the position that SubRip borrows from SubStation; not the heart of "<3".
_MARKUP = re.compile(r"</?(?:[a-zA-Z][^<>]*|[0-9:.]+)?>|\{\\[^{}]*\}")
_NO_TEXT = ("NOTE", "STYLE", "REGION")  # what blocks of WebVTT that are no captions begin with
_HOLD_SECONDS = 0.05  # automatic captions hold a finished line for 0.01 s before it rolls
_MOST_ROLLING_LINES = 4

# Two or three letters, as in a.en-US.vtt; those of a.mov.vtt are no language.
_NOT_MEDIA = "(?!(?:avi|flv|mkv|mov|mpg|mxf|ogg|ogv|ts|vob|wav|wmv)$)"
_LANGUAGE = re.compile(rf"{_NOT_MEDIA}[a-z]{{2,3}}(?:[-_][a-z0-9]{{2,8}})*", re.IGNORECASE)


def read_caption_file(
    path: str | Path,
    video: str | None = None,
    max_bad: float = MAX_BAD,
    parser: CaptionParser | None = None,
) -> list[Caption]:
    """Read captions in the format that the file's ending names.

    ``.vtt`` and ``.srt`` hold the captions of one video, see :func:`read_subtitles`. ``.csv`` and
    ``.tsv``: see :func:`.table.read_csv`. ``.json`` holds one of

    * a list of ``{"video": …, "start": …, "end": …, "text": …}``, by these or other names of
      :data:`.rows.COLUMNS`; without start and end about the whole video,
    * MSR-VTT's ``{"videos": …, "sentences": [{"video_id": …, "caption": …}, …]}``: captions of
      whole videos,
    * the layout of HowTo100M, see :func:`captions_by_video`.

    Args:
        path: a file; its encoding is found, see :func:`.guess.decode`.
        video: the video of a subtitle file; by default the file's name without ending and language
            (``holiday`` for ``holiday.en.vtt``). Of the other formats, only its captions are read.
        max_bad: the share of captions that may be bad, see :class:`CaptionParser`.
        parser: makes the captions, in place of one with ``max_bad``.

    Raises:
        CaptionError: no such file, another format, too many bad captions, or none at all. Only
            a WebVTT file may have no captions.
    """
    path, parser = Path(path), parser or CaptionParser(max_bad)
    ending = path.suffix.lower()
    if ending in SUBTITLES:
        captions = read_subtitles(path, parser, video or split_language(path.stem)[0])
    elif ending == ".json":
        captions = _read_json(path, parser)
    elif ending in (".csv", ".tsv"):
        captions = table.read_csv(path, parser)
    else:
        raise CaptionError(
            f"{path}: captions cannot be read from {ending or 'a file without ending'}; "
            f"use .csv, .json, {', '.join(SUBTITLES)}"
        )
    parser.check()
    chosen = [caption for caption in captions if video in (None, caption.video)]
    if not chosen and ending not in SUBTITLES:
        raise NoCaptionsError(f"{path}: no captions of {video or 'any video'}; check the name")
    return chosen


def read_by_video(path: Path, parser: CaptionParser) -> Iterator[tuple[str, list[Caption]]]:
    """Read HowTo100M's ``caption.pickle``, or the same as JSON, see :func:`captions_by_video`."""
    content = _load_json(path, parser) if path.suffix == ".json" else load_pickle(path)
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
        except (TypeError, LookupError, ValueError):
            what = f"{short(columns)} must be lists start, end, text of one length"
            values = columns.values() if isinstance(columns, dict) else ()
            lost = [len(column) for column in values if isinstance(column, list | tuple)]
            parser.refuse(f"{where}: {what}", max([1, *lost]))
            continue
        place = f"{where}, caption"
        captions = parser.finish(
            parser.parse(place, i, name, start, end, _line(text))
            for i, (start, end, text) in enumerate(rows, 1)
        )
        yield name, sorted(captions, key=lambda caption: caption.start)


def _load_json(path: Path, parser: CaptionParser) -> Any:
    text = read_text(path, parser.guesses)
    if not text.strip():
        raise CaptionError(f"{path}: the file is empty; make or download it again")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CaptionError(f"{path}: not JSON ({error}); check the file") from error


def _read_json(path: Path, parser: CaptionParser) -> list[Caption]:
    data = _load_json(path, parser)
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
        names = find_columns(list(row)) if isinstance(row, dict) else {}
        if not {"video", "text"} <= names.keys() or ("end" in names and "start" not in names):
            parser.refuse(
                f"{where} {i}: {short(row)} needs video, start, end, text; without both of start"
                " and end it is about the whole video"
            )
            continue
        video, start, end, text = (row[names[c]] if c in names else None for c in COLUMNS)
        captions.append(parser.parse(where, i, _line(video), start, end, _line(text)))
    return parser.finish(captions)


def _line(text: Any) -> Any:
    return " ".join(text.split()) if isinstance(text, str) else text


@dataclasses.dataclass
class _Cue:
    line: int  # of the times, from 1
    start: float
    end: float
    lines: list[str]


def read_subtitles(path: Path, parser: CaptionParser, video: str) -> list[Caption]:
    """Read the captions of one video, sorted by start.

    Markup is removed, lines are joined by a space, captions without text are left out and counted,
    see :class:`.table.CaptionParser`, which also says what is done to bad ones. Automatic
    captions repeat lines while they roll; each line is kept once: lines that the cue before ended
    with are dropped, and a cue of a few hundredths of a second becomes part of it. A WebVTT file
    may have no captions.
    """
    text = read_text(path, parser.guesses)
    if not text.strip():
        raise CaptionError(f"{path}: the file is empty; make or download it again")
    is_vtt = text.startswith("WEBVTT")
    lines = re.split(r"\r\n|\r|\n", text)
    if path.suffix.lower() == ".vtt" and not is_vtt:
        raise CaptionError(
            f"{path}, line 1: {short(lines[0])} is not WEBVTT, which such a file begins with; "
            "rename it if it is of another format"
        )
    if "-->" not in text and not is_vtt:
        raise CaptionError(
            f"{path}: no times such as 00:00:01,000 --> 00:00:02,500; it is not SubRip"
        )
    spoken = []
    for cue in _cues(lines, path, is_vtt, parser):
        cue.lines = _plain(cue.lines)
        raw = (cue.line, video, cue.start, cue.end, " ".join(cue.lines))
        if parser.parse(f"{path}, line", *raw) and cue.lines:
            spoken.append(cue)
    spoken.sort(key=lambda cue: cue.start)
    once = _say_once(spoken, rolls=_WORD_TIME.search(text) is not None)
    return [Caption(video, cue.start, cue.end, " ".join(cue.lines)) for cue in once]


def split_language(stem: str) -> tuple[str, str]:
    """Split ``holiday.en`` into the name and the language."""
    name, _, last = stem.rpartition(".")
    if name and _LANGUAGE.fullmatch(last):
        return name, last
    return stem, ""


def _cues(lines: Sequence[str], path: Path, is_vtt: bool, parser: CaptionParser) -> list[_Cue]:
    """Cut a file into cues, with their markup."""
    cues: list[_Cue] = []
    part = ""  # what the line belongs to: a cue's text, a note, nothing
    for number, line in enumerate(lines, 1):
        before = lines[number - 2].strip() if number > 1 else ""
        if "-->" in line and (match := _TIMES.match(line)):
            if part == "text" and before.isdecimal():  # SubRip numbers its cues
                cues[-1].lines.pop()
            start, end = _seconds(*match.groups()[1:5]), _seconds(*match.groups()[6:])
            cues.append(_Cue(number, start, end, []))
            part = "text"
        elif not line:
            # YouTube's cues have lines of one space: only an empty line ends a cue, and in SubRip,
            # where texts have empty lines, not even that.
            part = "" if is_vtt else part
        elif part == "" and is_vtt and line.startswith(_NO_TEXT):
            part = "note"
        elif "-->" in line and part != "note" and (part == "" or not before or before.isdecimal()):
            parser.refuse(
                f"{path}, line {number}: {short(line)} are no times; write them like "
                "00:00:01.000 --> 00:00:02.500"
            )
            if part == "text" and before.isdecimal():
                cues[-1].lines.pop()
            part = ""  # its lines are lost
        elif part == "text":
            cues[-1].lines.append(line)
    return cues


def _seconds(hours: str | None, minutes: str, seconds: str, fraction: str | None) -> float:
    whole = int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds)
    return float(f"{whole}.{fraction or 0}")


def _plain(lines: Iterable[str]) -> list[str]:
    """Remove markup, entities, and lines without text."""
    text = html.unescape(_MARKUP.sub("", "\n".join(lines)))
    return [plain for line in text.split("\n") if (plain := " ".join(line.split()))]


def _say_once(cues: Iterable[_Cue], rolls: bool) -> list[_Cue]:
    """Drop lines that are repeated without a pause, or in a file that rolls; keep other repeats."""
    said: list[_Cue] = []
    shown: list[str] = []
    for cue in cues:
        follows = bool(said) and cue.start <= said[-1].end
        short = cue.end - cue.start <= _HOLD_SECONDS
        new = cue.lines[_overlap(shown, cue.lines) if follows or rolls else 0 :]
        shown = cue.lines
        if follows and (short or not new):
            last = said[-1]
            said[-1] = _Cue(last.line, last.start, max(last.end, cue.end), last.lines + new)
        elif new:
            said.append(dataclasses.replace(cue, lines=new))
        elif not short:  # the same line, after a pause
            said.append(cue)
    return said


def _overlap(shown: Sequence[str], lines: Sequence[str]) -> int:
    """Count the first lines that are the last of what was shown."""
    most = min(len(shown), len(lines), _MOST_ROLLING_LINES)
    return next((k for k in range(most, 0, -1) if shown[-k:] == lines[:k]), 0)
