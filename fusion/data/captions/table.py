"""Captions of videos: the one place that checks their values, and the reader of csv files."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from reprlib import repr as short
from typing import Any

from fusion.data.features.problems import MAX_BAD, NAMED, name_some, tolerate
from fusion.files import missing_folder

# Names of each column: our own first, then those of MSR-VTT, YouCook2 and HowTo100M. The first name
# that a file has counts; its other columns are ignored.
COLUMNS = {
    "video": ("video", "video_id", "video_path"),
    "start": ("start",),
    "end": ("end",),
    "text": ("text", "sentence", "caption"),
}
WHOLE = (0.0, math.inf)  # start and end of a caption about a whole video
# A file with such columns, but without start and end, has times under unknown names: an error.
_TIMES = {"begin", "from", "offset", "onset", "start", "end", "stop", "time", "timestamp", "to"}


class CaptionError(ValueError):
    """A caption file that cannot be read; one line with the file, the place and the way out."""


@dataclasses.dataclass(frozen=True)
class Caption:
    """What is said or described from ``start`` to ``end`` of a video."""

    video: str  # name of the video, as the file has it
    start: float  # seconds
    end: float  # seconds, more than start; infinity: the caption is about the whole video
    text: str  # may be empty: nothing is said

    @property
    def is_whole(self) -> bool:
        """Whether it is about the whole video."""
        return math.isinf(self.end)

    @property
    def name(self) -> str:
        """The name of its clip: the video, and its first and last second."""
        return self.video if self.is_whole else f"{self.video}@{self.start:g}-{self.end:g}"


class CaptionParser:
    """Makes captions from raw values of any file, with one rule for bad ones.

    A caption is bad if it has no video, a time that is not a number of seconds from 0 on, an end
    that is not after its start, only one of the two, or a text that is neither a string nor a
    finite number. It is left out, counted and named; :meth:`check` limits how many may be bad. If
    the structure of a file is wrong, such as a missing column, its reader raises an error.

    Args:
        max_bad: the share of captions that may be bad.
        timed: a caption without times is bad; otherwise it is about the whole video.
    """

    def __init__(self, max_bad: float = MAX_BAD, timed: bool = False) -> None:
        self.max_bad, self.timed = max_bad, timed
        self.total = self.bad = 0
        self.problems: list[str] = []  # the first few bad captions, each with its place

    def parse(
        self, where: str, number: int, video: Any, start: Any, end: Any, text: Any
    ) -> Caption | None:
        """Make a caption; None if it is bad.

        ``where`` names the file and what ``number`` counts in it, such as ``a.csv, line``. Times
        are seconds, as numbers or written out, or both None or empty. A number counts as a text,
        as in the published code.
        """
        self.total += 1
        try:
            return self._make(video, start, end, text)
        except ValueError as error:
            self.bad += 1
            if len(self.problems) <= NAMED:
                self.problems.append(f"{where} {number}: {error}")
            return None

    def check(self) -> None:
        """Warn of the bad captions; CaptionError: they are more than ``max_bad`` of all."""
        if self.bad:
            said = name_some(self.problems, "; ")
            said += f": {self.bad} of {self.total} captions cannot be used"
            try:
                tolerate(said, self.bad / self.total, "leave_out", self.max_bad)
            except ValueError as error:
                raise CaptionError(str(error)) from None

    def _make(self, video: Any, start: Any, end: Any, text: Any) -> Caption:
        if not isinstance(video, str) or not video.strip():
            raise ValueError(f"video is {short(video)}; write its name, in JSON in quotes")
        is_number = isinstance(text, int | float) and math.isfinite(_number(text))
        if not (isinstance(text, str) or is_number):
            raise ValueError(f"text is {short(text)}; write a text, in JSON in quotes")
        if not self.timed and _is_empty(start) and _is_empty(end):
            return Caption(video, *WHOLE, str(text))
        first, last = _number(start), _number(end)
        if 0 <= first < last < math.inf:
            return Caption(video, first, last, str(text))
        for name, value, number in [("start", start, first), ("end", end, last)]:
            if not math.isfinite(number):
                raise ValueError(
                    f"{name} is {short(value)}, not a number; write seconds, such as 12.5, or leave"
                    " start and end empty: the whole video"
                )
        if first < 0:
            raise ValueError(f"start is {start}; times are seconds from 0 on")
        raise ValueError(f"end ({end}) is not after start ({start}); correct one of them")


def read_csv(path: str | Path, parser: CaptionParser, video: str | None = None) -> list[Caption]:
    """Read the captions of a csv file in UTF-8, in its order.

    It has the columns video (unless ``video`` is given), start, end and text, or other names of
    ``COLUMNS``, in any order and case; others are ignored. Without the columns start and end, or
    where both are empty, a caption is about the whole video.
    """
    rows = list(read_table(path))
    places = _places(rows[0][1], path, video) if rows else {}
    if len(rows) < 2:
        raise CaptionError(
            f"{path}: no captions; it needs the line {','.join(COLUMNS)} (or video,text: about"
            " whole videos) and one line per caption"
        )
    captions = []
    for line, row in rows[1:]:
        if len(row) <= max(places.values()):
            raise CaptionError(
                f"{path}, line {line}: {len(row)} columns, fewer than the first line names; put"
                " texts with commas in quotes, and write an empty text as two commas or quotes"
            )
        values: dict[str, Any] = {column: row[place].strip() for column, place in places.items()}
        values = {"video": video, "start": None, "end": None} | values
        captions.append(parser.parse(f"{path}, line", line, **values))
    return [caption for caption in captions if caption]


def read_table(path: str | Path) -> Iterator[tuple[int, list[str]]]:
    """Read the lines of a csv file that are not blank: number, from 1, and fields of each."""
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    width = 0
    try:
        for row in reader:
            width = width or len(row)
            if len(row) > width:
                raise CaptionError(
                    f"{path}, line {reader.line_num}: {len(row)} fields in {width} columns;"
                    " put texts with commas in quotes"
                )
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise CaptionError(
            f"{path}, line {reader.line_num}: not csv ({error}); put texts with commas or quotes "
            "in quotes"
        ) from error


def read_text(path: str | Path) -> str:
    """Read a file of any format, without its byte order mark; CaptionError: it is not UTF-8."""
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        where = missing_folder(path)
        raise CaptionError(f"{path}: no such file{where}; check the path") from error
    except OSError as error:
        raise CaptionError(f"{path}: cannot be read ({error.strerror}); check it") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise CaptionError(
            f"{path}, line {line}: not UTF-8 ({error.reason}); save the file as UTF-8"
        ) from error


def find_columns(names: Sequence[str]) -> dict[str, str]:
    """Find which of ``COLUMNS`` there are, in any case, and their names here."""
    here = {name.strip().lower(): name for name in reversed(names)}
    called = {c: next((n for n in known if n in here), None) for c, known in COLUMNS.items()}
    return {column: here[name] for column, name in called.items() if name is not None}


def _places(header: Sequence[str], path: str | Path, video: str | None) -> dict[str, int]:
    """Find the columns; times may be missing, and in a file of one video its name."""
    found = [name.strip() for name in header]
    places = {column: found.index(name) for column, name in find_columns(found).items()}
    missing = [column for column in COLUMNS if column not in places]
    if video is not None and "video" in missing:
        missing.remove("video")
    timeless = "start" in missing and "end" in missing
    if timeless and not any(_TIMES & set(re.split("[^a-z]+", name.lower())) for name in found):
        missing = [column for column in missing if column not in ("start", "end")]
    if missing:
        known = [" or ".join(names) for names in COLUMNS.values()]
        raise CaptionError(
            f"{path}, line 1: no column {', '.join(missing)} among {', '.join(found)}; the first"
            f" line names the columns {', '.join(known)}; without both of start and end it is about"
            " whole videos"
        )
    return places


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _number(value: Any) -> float:
    """Return a finite or infinite number; NaN for anything else, such as True."""
    if isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
