"""Captions of videos, one per line of a csv file with the columns video, start, end, text."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

_COLUMNS = ("video", "start", "end", "text")


class CaptionError(ValueError):
    """A caption file that cannot be read; one line with the file, the place and the way out."""


@dataclasses.dataclass(frozen=True)
class Caption:
    """What is said or described in a stretch of a video.

    Attributes:
        video: name of the video, as the file has it.
        start: seconds.
        end: seconds, more than ``start``.
        text: may be empty: nothing is said.
    """

    video: str
    start: float
    end: float
    text: str


def read_captions(path: str | Path) -> list[Caption]:
    """Read a caption file, in its order.

    Args:
        path: csv in UTF-8 (with or without byte order mark) with the columns video, start, end and
            text, in any order; others are ignored.

    Raises:
        CaptionError: no such file, no caption, a missing column, an impossible value, or an
            encoding other than UTF-8.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            captions = _parse(file, path)
    except FileNotFoundError as error:
        raise CaptionError(f"{path}: no such file; check the path") from error
    except OSError as error:
        raise CaptionError(f"{path}: cannot be read ({error.strerror}); check it") from error
    except UnicodeDecodeError as error:
        raise CaptionError(
            f"{path}, line {_first_undecodable(path)}: not UTF-8 ({error.reason}); save the file "
            "as UTF-8"
        ) from error
    if not captions:
        raise CaptionError(
            f"{path}: no captions; it needs the line {','.join(_COLUMNS)} and one line per caption"
        )
    return captions


def _parse(file: TextIO, path: str | Path) -> list[Caption]:
    reader = csv.reader(file, strict=True)
    captions = []
    try:
        header = next(reader, None)
        if header is None:
            return []
        places = _places(header, path)
        for row in reader:
            if len(row) > len(header):
                raise CaptionError(
                    f"{path}, line {reader.line_num}: {len(row)} fields in {len(header)} columns;"
                    " put texts with commas in quotes"
                )
            if row:  # blank lines are no captions
                captions.append(_caption(row, places, f"{path}, line {reader.line_num}"))
    except csv.Error as error:
        raise CaptionError(
            f"{path}, line {reader.line_num}: not csv ({error}); put texts with commas or quotes "
            "in quotes"
        ) from error
    return captions


def _places(header: Sequence[str], path: str | Path) -> dict[str, int]:
    """Find the columns."""
    found = [name.strip() for name in header]
    missing = [name for name in _COLUMNS if name not in found]
    if missing:
        raise CaptionError(
            f"{path}, line 1: no column {', '.join(missing)} among {', '.join(found)}; "
            f"the first line names the columns {', '.join(_COLUMNS)}"
        )
    return {name: found.index(name) for name in _COLUMNS}


def _caption(row: Sequence[str], places: dict[str, int], where: str) -> Caption:
    """Make a caption of a row; ``where`` begins the message if it is a bad one."""
    if len(row) <= max(places.values()):
        raise CaptionError(
            f"{where}: {len(row)} columns, fewer than the first line names; put texts with commas "
            "in quotes, and write an empty text as two commas or quotes"
        )
    video, start, end, text = (row[places[name]].strip() for name in _COLUMNS)
    if not video:
        raise CaptionError(f"{where}: no video; name the file that the caption belongs to")
    first, last = _time(start, "start", where), _time(end, "end", where)
    if first < 0:
        raise CaptionError(f"{where}: start is {start}; times are seconds from 0 on")
    if last <= first:
        raise CaptionError(
            f"{where}: end ({end}) is not after start ({start}); correct one of them"
        )
    return Caption(video, first, last, text)


def _time(value: str, column: str, where: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise CaptionError(
            f"{where}: {column} is {value!r}, not a number; write seconds, such as 12.5"
        )
    return number


def _first_undecodable(path: str | Path) -> int:
    """Count the lines up to the first that is not UTF-8."""
    valid = Path(path).read_bytes().decode(errors="surrogateescape")
    return 1 + next(
        valid.count("\n", 0, i) for i, c in enumerate(valid) if "\udc80" <= c <= "\udcff"
    )
