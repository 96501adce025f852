"""Captions of videos: the one place that checks their values, and the reader of csv files."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from reprlib import repr as short
from typing import Any

from fusion.data.captions.guess import Guesses, read_seconds
from fusion.data.captions.rows import COLUMNS, find_columns, is_known, stream_table
from fusion.data.captions.rows import CaptionError as CaptionError
from fusion.data.features.problems import MAX_BAD, NAMED, name_some, tolerate, warn
from fusion.words import number_of

OPEN = "an end that is missing is the start of the film's next caption, or the end of the film"
WHOLE = (0.0, math.inf)  # start and end of a caption about a whole video
# A file that lacks start or end but has such columns has times under unknown names: an error.
_TIMES = {"begin", "from", "offset", "onset", "start", "end", "stop", "time", "timestamp", "to"}
_TIMES |= {"duration", "length", "ms", "anfang", "beginn", "ende", "fin", "inicio", "von", "bis"}


class NoCaptionsError(CaptionError):
    """A file or folder has no captions that can be used."""


@dataclasses.dataclass(frozen=True)
class Caption:
    """What is said or described from ``start`` to ``end`` of a video."""

    video: str  # name of the video, as the file has it
    start: float  # seconds
    end: float  # seconds, more than start; infinity: the end of the video
    text: str  # may be empty: nothing is said

    @property
    def is_whole(self) -> bool:
        """Whether it is about the whole video."""
        return (self.start, self.end) == WHOLE

    @property
    def name(self) -> str:
        """The name of its clip: the video, and its first and last second."""
        if self.is_whole:
            return self.video
        return f"{self.video}@{self.start:g}-" + ("" if math.isinf(self.end) else f"{self.end:g}")


class CaptionParser:
    """Makes captions from raw values of any file, with one rule for bad ones.

    A caption is bad if it has no video, a time that is not a number of seconds from 0 on, an end
    that is not after its start, an end without a start, a text that is neither a string nor a
    finite number, or a place in the file that cannot be read at all, see :meth:`refuse`. It is left
    out, counted and named; :meth:`check` limits how many may be bad. A caption with an empty text
    is not bad; it is counted and named too. If the structure of a whole file is wrong, such as a
    missing column, its reader raises a CaptionError.

    Args:
        max_bad: the share of captions that may be bad.
        timed: a caption without start or end is bad; otherwise it is about the whole video, or
            lasts until the next one of the video begins.
    """

    def __init__(self, max_bad: float = MAX_BAD, timed: bool = False) -> None:
        self.max_bad, self.timed = max_bad, timed
        self.total = self.bad = 0
        self.problems: list[str] = []  # the first few bad captions, each with its place
        self.silent: list[str] = []  # the places of captions without text
        self.guesses = Guesses()
        self.read_as: dict[str, None] = {}  # encodings and separators of the tables

    def parse(
        self, where: str, number: int, video: Any, start: Any, end: Any, text: Any, sep: str = ","
    ) -> Caption | None:
        """Make a caption; None if it is bad.

        ``where`` names the file and what ``number`` counts in it, such as ``a.csv, line``. Times
        are seconds, as numbers or written out (see :func:`.guess.read_seconds`), or None or empty;
        the file separates them by ``sep``. A number counts as a text, as in the published code.
        The end is NaN where it is missing, until :meth:`finish`.
        """
        self.total += 1
        if isinstance(text, str) and not text.strip():
            self.silent.append(f"{where} {number}")
        try:
            return self._make(where.rpartition(",")[0], video, start, end, text, sep)
        except ValueError as error:
            self.bad += 1
            self.note(f"{where} {number}: {error}")
            return None

    def note(self, problem: str) -> None:
        """Keep a problem, if it is one of the first few."""
        if len(self.problems) <= NAMED:
            self.problems.append(problem)

    def refuse(self, message: str, captions: int = 1) -> None:
        """Count captions that cannot be read at all, such as a row with too few columns."""
        self.total += captions
        self.bad += captions
        self.note(message)

    def finish(self, captions: Iterable[Caption | None]) -> list[Caption]:
        """Leave out the bad captions of a file, and set the ends that are missing.

        Such a caption lasts until the next one of its video begins; the last one to infinity.
        """
        good = [caption for caption in captions if caption]
        if not any(math.isnan(caption.end) for caption in good):
            return good
        starts: dict[str, set[float]] = {}
        for caption in good:
            starts.setdefault(caption.video, set()).add(caption.start)

        def close(c: Caption) -> Caption:
            later = [start for start in starts[c.video] if start > c.start]
            return dataclasses.replace(c, end=min(later, default=math.inf))

        return [close(caption) if math.isnan(caption.end) else caption for caption in good]

    def check(self) -> None:
        """Say what was guessed, and warn of captions that are bad or have no text.

        CaptionError: the bad ones are more than ``max_bad`` of all, and more than a message names.
        """
        self.guesses.say()
        if self.silent:
            warn(
                f"{number_of(len(self.silent), 'caption')} without text ({name_some(self.silent)}):"
                " such a clip of a table has no text, such a cue of subtitles is dropped"
            )
        if self.bad:
            read_as = f" (read as {name_some(list(self.read_as))})" if self.read_as else ""
            said = name_some(self.problems, "; ") + read_as
            share = self.bad / self.total
            said += f": {self.bad} of {self.total} captions cannot be used ({share:.0%})"
            try:
                tolerate(said, share, "leave_out", self.max_bad, self.bad)
            except ValueError as error:
                raise CaptionError(str(error)) from None

    def _make(self, file: str, video: Any, start: Any, end: Any, text: Any, sep: str) -> Caption:
        if not isinstance(video, str) or not video.strip():
            raise ValueError(f"video is {short(video)}; write its name, in JSON in quotes")
        is_number = isinstance(text, int | float) and math.isfinite(read_seconds(text, False)[0])
        if not (isinstance(text, str) or is_number):
            raise ValueError(f"text is {short(text)}; write a text, in JSON in quotes")
        if not self.timed and _is_empty(start) and _is_empty(end):
            return Caption(video, *WHOLE, str(text))
        first, guess = read_seconds(start, sep != ",")
        last, other = read_seconds(end, sep != ",")
        is_open = not self.timed and _is_empty(end)
        if 0 <= first < (math.inf if is_open else last) and (is_open or last < math.inf):
            for said in filter(None, (guess, OPEN if is_open else other)):
                self.guesses.add(file, said)
            return Caption(video, first, math.nan if is_open else last, str(text))
        for name, value, number in [("start", start, first), ("end", end, last)]:
            if not math.isfinite(number) and not (is_open and name == "end"):
                raise ValueError(
                    f"{name} is {short(value)}, not a number; write seconds, such as 12.5, or"
                    " mm:ss, or leave start and end empty: the whole video"
                )
        if first < 0:
            raise ValueError(f"start is {start}; times are seconds from 0 on")
        raise ValueError(f"end ({end}) is not after start ({start}); correct one of them")


def read_csv(path: str | Path, parser: CaptionParser, video: str | None = None) -> list[Caption]:
    """Read the captions of a csv file, in its order.

    It has the columns video (unless ``video`` is given), start, end and text, or other names of
    ``COLUMNS`` and ``ALSO``, in any order and case; others are ignored. Without the columns start
    and end, or where both are empty, a caption is about the whole video. Encoding and separator:
    see :func:`.rows.stream_table`.
    """
    table = stream_table(path, parser.guesses, parser.refuse)
    parser.read_as[table.read_as] = None
    _, header = next(table.rows, (0, []))
    places = _places(header, path, video, table.read_as) if header else {}
    first = next(table.rows, None)
    if first is None:
        raise NoCaptionsError(
            f"{path}: no captions; it needs the line {','.join(COLUMNS)} (or video,text: about"
            f" whole videos) and one line per caption (read as {table.read_as})"
        )
    if names := [(header[p].strip(), c) for c, p in places.items() if not is_known(c, header[p])]:
        theirs, ours = (", ".join(part) for part in zip(*names, strict=True))
        parser.guesses.add(str(path), f"columns {theirs} as {ours}")
    videos: dict[str, str] = {}
    captions = []
    for line, row in itertools.chain([first], table.rows):
        if len(row) <= max(places.values()):
            parser.refuse(
                f"{path}, line {line}: {len(row)} columns, fewer than the first line names; put"
                " texts with commas in quotes, and write an empty text as two commas or quotes"
                f" (read as {table.read_as})"
            )
            continue
        values: dict[str, Any] = {column: row[place].strip() for column, place in places.items()}
        values = {"video": video, "start": None, "end": None} | values
        if values["video"]:  # one text for all captions of a video
            values["video"] = videos.setdefault(values["video"], values["video"])
        captions.append(parser.parse(f"{path}, line", line, **values, sep=table.separator))
    return parser.finish(captions)


def _places(
    header: Sequence[str], path: str | Path, video: str | None, read_as: str
) -> dict[str, int]:
    """Find the columns; times may be missing, and in a file of one video its name."""
    found = [name.strip() for name in header]
    columns = find_columns(found)
    places = {column: found.index(name) for column, name in columns.items()}
    missing = [column for column in COLUMNS if column not in places]
    if video is not None and "video" in missing:
        missing.remove("video")
    others = [name for name in found if name not in columns.values()]
    timed = any(_TIMES & set(re.split("[^a-z]+", name.lower())) for name in others)
    if not timed:
        # Without both it is about whole videos, without an end up to the next caption.
        gone = tuple(column for column in missing if column in ("start", "end"))
        has_video = "video" not in missing
        if (gone == ("start", "end") and has_video) or (gone == ("end",) and "text" not in missing):
            missing = [column for column in missing if column not in gone]
    if missing:
        known = [" or ".join(names) for names in COLUMNS.values()]
        raise CaptionError(
            f"{path}, line 1: no column {', '.join(missing)} among {', '.join(found)}; the first"
            f" line names the columns {', '.join(known)}; without both of start and end it is about"
            f" whole videos (read as {read_as})"
        )
    return places


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())
