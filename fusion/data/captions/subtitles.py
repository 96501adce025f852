"""Captions in WebVTT and SubRip files, of one video each.

WebVTT is read as https://www.w3.org/TR/webvtt1/ says, without its layout. Libraries (webvtt-py,
pysubs2, srt) skip captions that they cannot read without a message, or stop without a line number;
here an error names the place.
"""

from __future__ import annotations

import dataclasses
import html
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from reprlib import repr as short

from fusion.data.captions.table import Caption, CaptionError, CaptionParser, read_text

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


@dataclasses.dataclass
class _Cue:
    line: int  # of the times, from 1
    start: float
    end: float
    lines: list[str]


def read_subtitles(path: Path, parser: CaptionParser, video: str) -> list[Caption]:
    """Read the captions of one video, sorted by start.

    Markup is removed, lines are joined by a space, captions without text are left out. Automatic
    captions repeat lines while they roll; each line is kept once: lines that the cue before ended
    with are dropped, and a cue of a few hundredths of a second becomes part of it. A WebVTT file
    may have no captions.
    """
    text = read_text(path)
    if not text.strip():
        raise CaptionError(f"{path}: the file is empty; make or download it again")
    is_vtt = text.startswith("WEBVTT")
    lines = re.split(r"\r\n|\r|\n", text)
    if path.suffix.lower() == ".vtt" and not is_vtt:
        raise CaptionError(
            f"{path}, line 1: {short(lines[0])} is not WEBVTT, which such a file begins with; "
            "rename it if it is of another format"
        )
    cues = _cues(lines, path, is_vtt)
    if not cues and not is_vtt:
        raise CaptionError(
            f"{path}: no times such as 00:00:01,000 --> 00:00:02,500; it is not SubRip"
        )
    spoken = []
    for cue in cues:
        cue.lines = _plain(cue.lines)
        raw = (cue.line, video, cue.start, cue.end, " ".join(cue.lines))
        if cue.lines and parser.parse(f"{path}, line", *raw):
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


def _cues(lines: Sequence[str], path: Path, is_vtt: bool) -> list[_Cue]:
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
            raise CaptionError(
                f"{path}, line {number}: {short(line)} are no times; write them like "
                "00:00:01.000 --> 00:00:02.500"
            )
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
    """Drop lines repeated without a pause or in a file that rolls; others were said twice."""
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
