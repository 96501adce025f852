"""Captions in WebVTT, SubRip and JSON files, and which file belongs to which video.

WebVTT is read as https://www.w3.org/TR/webvtt1/ says, without its layout. The libraries for it
(webvtt-py, pysubs2, srt) skip a caption that they cannot read without a word, or stop without a
line number; here the reader of the error must find the place, so the few rules are written out.
"""

from __future__ import annotations

import dataclasses
import html
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from reprlib import repr as short
from typing import Any

from fusion.data.captions import Caption, CaptionError, read_captions

SUBTITLES = (".vtt", ".srt")  # of one video each; the first is taken where there are both

_COLUMNS = ("start", "end", "text")
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
    """One block of a subtitle file: seconds, and its lines of text."""

    line: int  # of the times, from 1
    start: float
    end: float
    lines: list[str]


def read_caption_file(path: str | Path, video: str | None = None) -> list[Caption]:
    """Read captions in the format that the file's ending names.

    ``.vtt`` and ``.srt`` hold the captions of one video; markup is removed, lines are joined by a
    space, captions without text are left out, the others sorted by start. What automatic captions
    repeat while they roll is said once: lines that the cue before ended with are dropped, cues of
    a few hundredths of a second become part of it. ``.json`` holds a list of
    ``{"video": …, "start": …, "end": …, "text": …}`` or the layout of HowTo100M, see
    :func:`captions_by_video`. ``.csv``: see :func:`read_captions`.

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
        return _read_subtitles(path, video or _split_language(path.stem)[0])
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


def _read_subtitles(path: Path, video: str) -> list[Caption]:
    text = _read_text(path)
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
    for cue in cues:
        cue.lines = _plain(cue.lines)
        if cue.lines and cue.end <= cue.start:
            raise CaptionError(
                f"{path}, line {cue.line}: end ({cue.end:.3f} s) is not after start "
                f"({cue.start:.3f} s); correct one of them"
            )
    spoken = sorted((cue for cue in cues if cue.lines), key=lambda cue: cue.start)
    once = _say_once(spoken, rolls=_WORD_TIME.search(text) is not None)
    return [Caption(video, cue.start, cue.end, " ".join(cue.lines)) for cue in once]


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
    """Drop what rolling captions repeat.

    Lines count as repeated where cues follow one another without a pause, or where the file is
    known to roll; elsewhere a repeated line was said twice.
    """
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
            rows = list(zip(*(columns[name] for name in _COLUMNS), strict=True))
        except (TypeError, LookupError, ValueError) as error:
            raise CaptionError(
                f"{where}: {short(columns)} must be lists start, end, text of one length"
            ) from error
        captions = [_caption(f"{where}, caption {i}", video, *row) for i, row in enumerate(rows, 1)]
        yield video, sorted(captions, key=lambda caption: caption.start)


def _read_json(path: Path) -> list[Caption]:
    text = _read_text(path)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CaptionError(f"{path}: not JSON ({error}); check the file") from error
    if isinstance(data, dict):
        return [caption for _, captions in captions_by_video(data, path) for caption in captions]
    if not isinstance(data, list):
        raise CaptionError(f"{path}: {short(data)} is neither a list nor a mapping of captions")
    captions = []
    for i, row in enumerate(data, 1):
        if not (isinstance(row, dict) and {"video", *_COLUMNS} <= row.keys()):
            raise CaptionError(f"{path}, entry {i}: {short(row)} needs video, start, end, text")
        values = (row[name] for name in ("video", *_COLUMNS))
        captions.append(_caption(f"{path}, entry {i}", *values))
    return captions


def _caption(where: str, video: Any, start: Any, end: Any, text: Any) -> Caption:
    """Make a caption of what JSON holds; ``where`` begins the message."""
    try:
        first, last = float(start), float(end)
    except (TypeError, ValueError, OverflowError):
        first = last = math.nan
    if not 0 <= first < last < math.inf:
        raise CaptionError(
            f"{where}: start is {short(start)}, end is {short(end)}; they must be seconds from 0 "
            "on, the end after the start"
        )
    for name, value in {"video": video, "text": text}.items():
        if not isinstance(value, str) or not (value.strip() or name == "text"):
            raise CaptionError(f"{where}: {name} is {short(value)}; put it in quotes")
    return Caption(video.strip(), first, last, " ".join(text.split()))


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
        if not content.strip():
            raise CaptionError(f"{path}: the file is empty; make or download it again")
        return content.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise CaptionError(f"{path}: no such file; check the path") from error
    except OSError as error:
        raise CaptionError(f"{path}: cannot be read ({error.strerror}); check it") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise CaptionError(
            f"{path}, line {line}: not UTF-8 ({error.reason}); save the file as UTF-8"
        ) from error


def _split_language(stem: str) -> tuple[str, str]:
    """Split ``holiday.en`` into the name and the language."""
    name, _, last = stem.rpartition(".")
    if name and _LANGUAGE.fullmatch(last):
        return name, last
    return stem, ""


def find_captions(place: str | Path, videos: Sequence[str]) -> dict[str, list[Caption]]:
    """Find the captions of videos.

    In a folder, each video gets the subtitle file of its name, with or without a language
    (``a.vtt``, ``a.en.vtt``, ``a.mp4.vtt`` or ``a.srt`` for ``a.mp4``): the one in the video's own
    folder if there is one, in English if there are several. In a file of several videos, captions
    may name a video without its ending or folder.

    Args:
        place: a folder that is searched with all below it, or a caption file.
        videos: names of media files, relative to the folder.

    Returns:
        By video, in the order given, its captions under that name; none if there are none.

    Raises:
        CaptionError: a file cannot be read, the choice is not clear, or no video has captions.
    """
    place = Path(place)
    found: dict[str, list[Caption]] = {video: [] for video in videos}
    if place.is_dir():
        for video, file in _files_by_video(place, videos).items():
            found[video] = _read_subtitles(file, video)
    elif place.suffix.lower() in SUBTITLES and len(videos) == 1:
        return {videos[0]: _read_subtitles(place, videos[0])}
    else:
        owners = _owners(videos)
        for caption in read_caption_file(place):
            for video in _owner(caption.video, owners, place):
                found[video].append(dataclasses.replace(caption, video=video))
    if not any(found.values()):
        raise CaptionError(
            f"{place}: no captions of {short(list(videos))}; in a folder, name their files like "
            "the videos, such as a.vtt or a.en.srt for a.mp4; in a file, check the names in it"
        )
    return found


def _files_by_video(folder: Path, videos: Iterable[str]) -> dict[str, Path]:
    """Choose a subtitle file for each video that has one."""
    owners = _owners(videos)
    choices: dict[str, list[tuple[Path, str]]] = defaultdict(list)
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() in SUBTITLES and file.is_file():
            exact = file.stem in owners
            name, language = (file.stem, "") if exact else _split_language(file.stem)
            beside = [v for v in owners.get(name, []) if (folder / v).parent == file.parent]
            for video in beside or _owner(name, owners, file):
                choices[video].append((file, language.lower()))
    return {video: _choose(folder / video, files) for video, files in choices.items()}


def _choose(video: Path, files: Sequence[tuple[Path, str]]) -> Path:
    """Take the file beside the video, in English, without language, or the only one."""

    def rank(choice: tuple[Path, str]) -> tuple[bool, int]:
        file, language = choice
        wishes = [language in ("en", "eng"), language[:3] in ("en-", "en_"), language == "", True]
        return file.parent != video.parent, wishes.index(True)

    best = min(map(rank, files))
    chosen = [choice for choice in files if rank(choice) == best]
    if len({(file.parent, language) for file, language in chosen}) > 1:
        raise CaptionError(
            f"{video}: which of {', '.join(str(file) for file, _ in chosen)} is meant? Leave one, "
            "or let the name of one end in .en before its ending"
        )
    return min((file for file, _ in chosen), key=lambda file: SUBTITLES.index(file.suffix.lower()))


def _owners(videos: Iterable[str]) -> dict[str, list[str]]:
    """List videos by each name that they may be called: with and without folder and ending."""
    owners: dict[str, list[str]] = defaultdict(list)
    for video in dict.fromkeys(videos):
        path = Path(video)
        for name in {video, path.name, path.stem, path.with_suffix("").as_posix()}:
            owners[name].append(video)
    return dict(owners)


def _owner(name: str, owners: Mapping[str, list[str]], file: Path) -> list[str]:
    """Find the video of a name: one or none."""
    found = owners.get(name, [])
    if len(found) > 1 and name not in found:
        raise CaptionError(f"{file}: {name} may be {' or '.join(found)}; name it in full")
    return [name] if name in found else found
