"""Captions of videos, one per line of a csv file with columns such as video, start, end, text."""

from __future__ import annotations

import csv
import dataclasses
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from fusion.files import missing_folder

# What a column is called: first as in our own files, then as in MSR-VTT's, YouCook2's and
# HowTo100M's. The first name that a file has counts; its other columns are ignored.
COLUMNS = {
    "video": ("video", "video_id", "video_path"),
    "start": ("start",),
    "end": ("end",),
    "text": ("text", "sentence", "caption"),
}
WHOLE = (0.0, math.inf)  # the times of a caption about a whole video, however long

# A file without times is about whole videos, but not if it has times that are called otherwise.
_TIMES = {"begin", "from", "offset", "onset", "start", "end", "stop", "time", "timestamp", "to"}


class CaptionError(ValueError):
    """A caption file that cannot be read; one line with the file, the place and the way out."""


@dataclasses.dataclass(frozen=True)
class Caption:
    """What is said or described in a stretch of a video.

    Attributes:
        video: name of the video, as the file has it.
        start: seconds.
        end: seconds, more than ``start``; infinity: the caption is about the whole video.
        text: may be empty: nothing is said.
    """

    video: str
    start: float
    end: float
    text: str

    @property
    def is_whole(self) -> bool:
        """Whether it is about the whole video, however long that is."""
        return math.isinf(self.end)

    @property
    def name(self) -> str:
        """What its clip is called: the video, and from which to which second."""
        return self.video if self.is_whole else f"{self.video}@{self.start:g}-{self.end:g}"


def read_captions(path: str | Path, video: str | None = None) -> list[Caption]:
    """Read a caption file, in its order.

    Args:
        path: csv in UTF-8 (with or without byte order mark) with the columns video, start, end and
            text or other names of ``COLUMNS``, in any order and case; others are ignored. Without
            the columns start and end, or where both are empty, it is about the whole video.
        video: the video of a file that has no such column.

    Raises:
        CaptionError: no such file, no caption, a missing column, an impossible value, or an
            encoding other than UTF-8.
    """
    rows = read_table(path)
    header = next(rows, None)
    captions = []
    if header is not None:
        places = _places(header[1], path, video)
        for where, row in rows:
            captions.append(_caption(row, places, f"{path}, line {where}", video))
    if not captions:
        raise CaptionError(
            f"{path}: no captions; it needs the line {','.join(COLUMNS)} (or video,text: about"
            " whole videos) and one line per caption"
        )
    return captions


def read_table(path: str | Path) -> Iterator[tuple[int, list[str]]]:
    """Read a csv file line by line, without blank ones; none has more fields than the first.

    Yields:
        The number of the line, from 1, and its fields.

    Raises:
        CaptionError: no such file, no csv, or an encoding other than UTF-8.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            yield from _rows(file, path)
    except FileNotFoundError as error:
        where = missing_folder(path)
        raise CaptionError(f"{path}: no such file{where}; check the path") from error
    except OSError as error:
        raise CaptionError(f"{path}: cannot be read ({error.strerror}); check it") from error
    except UnicodeDecodeError as error:
        raise CaptionError(
            f"{path}, line {_first_undecodable(path)}: not UTF-8 ({error.reason}); save the file "
            "as UTF-8"
        ) from error


def read_text(path: Path) -> str:
    """Read a caption file of any format as it is, without byte order mark.

    Raises:
        CaptionError: no such file, nothing in it, or an encoding other than UTF-8.
    """
    try:
        content = path.read_bytes()
        if not content.strip():
            raise CaptionError(f"{path}: the file is empty; make or download it again")
        return content.decode("utf-8-sig")
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
    """Find which of ``COLUMNS`` there are, and what each is called here, whatever its case."""
    here = {name.strip().lower(): name for name in reversed(names)}
    called = {c: next((n for n in known if n in here), None) for c, known in COLUMNS.items()}
    return {column: here[name] for column, name in called.items() if name is not None}


def _rows(file: TextIO, path: str | Path) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(file, strict=True)
    width = 0
    try:
        for row in reader:
            width = width or len(row)
            if len(row) > width:
                raise CaptionError(
                    f"{path}, line {reader.line_num}: {len(row)} fields in {width} columns;"
                    " put texts with commas in quotes"
                )
            if row:  # blank lines are no captions
                yield reader.line_num, row
    except csv.Error as error:
        raise CaptionError(
            f"{path}, line {reader.line_num}: not csv ({error}); put texts with commas or quotes "
            "in quotes"
        ) from error


def _places(header: Sequence[str], path: str | Path, video: str | None) -> dict[str, int]:
    """Find the columns; a file may go without times, and one of one video without its name."""
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


def _caption(row: Sequence[str], places: dict[str, int], where: str, video: str | None) -> Caption:
    """Make a caption of a row; ``where`` begins the message if it is a bad one."""
    if len(row) <= max(places.values()):
        raise CaptionError(
            f"{where}: {len(row)} columns, fewer than the first line names; put texts with commas "
            "in quotes, and write an empty text as two commas or quotes"
        )
    values = {column: row[place].strip() for column, place in places.items()}
    name = values.get("video", video)
    if not name:
        raise CaptionError(f"{where}: no video; name the file that the caption belongs to")
    start, end = values.get("start", ""), values.get("end", "")
    if not start and not end:
        return Caption(name, *WHOLE, values["text"])
    first, last = _time(start, "start", where), _time(end, "end", where)
    if first < 0:
        raise CaptionError(f"{where}: start is {start}; times are seconds from 0 on")
    if last <= first:
        raise CaptionError(
            f"{where}: end ({end}) is not after start ({start}); correct one of them"
        )
    return Caption(name, first, last, values["text"])


def _time(value: str, column: str, where: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise CaptionError(
            f"{where}: {column} is {value!r}, not a number; write seconds, such as 12.5, or leave "
            "start and end empty: the whole video"
        )
    return number


def _first_undecodable(path: str | Path) -> int:
    """Count the lines up to the first that is not UTF-8."""
    valid = Path(path).read_bytes().decode(errors="surrogateescape")
    return 1 + next(
        valid.count("\n", 0, i) for i, c in enumerate(valid) if "\udc80" <= c <= "\udcff"
    )
