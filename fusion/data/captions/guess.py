"""What is guessed about a caption file: its encoding, its separator, how it writes times.

Whatever is guessed is said, in one line for all files that are read together, see :class:`Guesses`.
"""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from fusion.data.features.problems import name_some, warn

SEPARATORS = (",", ";", "\t", "|")
_SHEET = b"PK\x03\x04"  # what files of Excel and LibreOffice begin with
_BINARY = re.compile(r"[\x00-\x08\x0e-\x19\x1b-\x1f]")  # in no text
_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
# hh:mm:ss.mmm, mm:ss, 12.5, 12.5 s
_TIME = re.compile(
    r"(?:(?:([0-9]+):)?([0-9]+):)?([0-9]+(?:[.,][0-9]*)?)(\s*s(?:ecs?|econds?)?\.?)?", re.IGNORECASE
)


class Guesses:
    """What was guessed about some files, and how often in each."""

    def __init__(self) -> None:
        self._found: dict[str, Counter[str]] = {}

    def add(self, file: str, guess: str) -> None:
        """Note a guess about a file."""
        self._found.setdefault(guess, Counter())[file] += 1

    def describe(self) -> str:
        """Say all guesses; empty if there are none."""
        counts = {guess: sum(files.values()) for guess, files in self._found.items()}
        return "; ".join(g + (f" ({n} times)" if n > 1 else "") for g, n in counts.items())

    def say(self) -> None:
        """Say all guesses in one line, and forget them."""
        if self._found:
            files = dict.fromkeys(file for found in self._found.values() for file in found)
            warn(f"{name_some(list(files))}: guessed: {self.describe()}")
        self._found = {}


def decode(data: bytes) -> tuple[str, str]:
    """Decode a text file; returns the text, without byte order mark, and its encoding.

    UTF-8 and UTF-16 are recognised; another file is taken for Windows-1252.

    Raises:
        ValueError: it is in no such encoding, in two at once, or no text; it names the line.
    """
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    if encoding == "utf-8" and (found := _utf_16(data)):
        encoding = found
    if data.startswith(_SHEET):
        raise ValueError("line 1: a spreadsheet, not a text file; save it as csv in UTF-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        if encoding == "utf-8":
            text, encoding = _windows(data, line), "cp1252"
        else:
            raise ValueError(f"line {line}: damaged {encoding}; save the file as UTF-8") from None
    if match := _BINARY.search(text):
        line = text.count("\n", 0, match.start()) + 1
        raise ValueError(f"line {line}: no text (read as {encoding}); save the file as UTF-8")
    return text.removeprefix("\ufeff"), encoding.replace("-sig", "")


def _utf_16(data: bytes) -> str | None:
    """Recognise UTF-16 without a mark: most letters have one byte that is zero."""
    pairs = max(1, len(data) // 2)
    for encoding, zeros in [("utf-16-le", data[1::2]), ("utf-16-be", data[::2])]:
        if zeros.count(0) > pairs / 2 and zeros.count(0) > 1:
            return encoding
    return None


def _windows(data: bytes, line: int) -> str:
    """Decode Windows-1252; a file that has letters in UTF-8 as well is damaged."""
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"line {line}: not UTF-8, UTF-16 or Windows-1252 ({error.reason}); save the file as"
            " UTF-8"
        ) from None
    if not data.decode("utf-8", "ignore").isascii():
        raise ValueError(
            f"line {line}: not UTF-8, as other lines are: two encodings in one file; save the file"
            " as UTF-8"
        )
    return text


def find_separator(text: str, merit: Callable[[Sequence[str]], tuple[int, int]]) -> str:
    """Find the separator with which the first line has the most known columns, then columns.

    ``sep=;`` as the first line, as Excel writes it, says it.
    """
    first = next((line for line in text.splitlines() if line.strip()), "")
    if separator := said_separator(first):
        return separator

    def fields(separator: str) -> Sequence[str]:
        try:
            return next(csv.reader([first], delimiter=separator), [])
        except csv.Error:  # a field that is too long
            return []

    return max(SEPARATORS, key=lambda separator: merit(fields(separator)))


def said_separator(line: str) -> str | None:
    """Return the separator that a line such as ``sep=;`` names."""
    match = re.fullmatch(r'"?sep=(.)"?\s*', line, re.IGNORECASE)
    return match[1] if match else None


def read_seconds(value: Any, decimal_comma: bool) -> tuple[float, str]:
    """Read a time: seconds and what was guessed; NaN if it is none, such as True.

    ``decimal_comma``: ``12,5`` is a number, as commas do not separate the columns.
    """
    if isinstance(value, bool):
        return math.nan, ""
    try:
        return float(value), ""
    except (TypeError, ValueError, OverflowError):
        pass
    match = _TIME.fullmatch(value.strip()) if isinstance(value, str) else None
    if not match:
        return math.nan, ""
    hours, minutes, seconds, unit = match.groups()
    if "," in seconds and not (minutes or decimal_comma):
        return math.nan, ""
    number = float(seconds.replace(",", "."))
    if minutes and (number >= 60 or (hours and int(minutes) >= 60) or unit):
        return math.nan, ""
    if not minutes:
        return number, "decimal commas" if "," in seconds else "times with the unit s"
    way = "hh:mm:ss" if hours else "mm:ss"
    return 3600 * int(hours or 0) + 60 * int(minutes) + number, f"times written {way}"
