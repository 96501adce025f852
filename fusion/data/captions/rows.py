"""The lines and the columns of tables such as csv files."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from fusion.data.captions.guess import Guesses, decode, find_separator, said_separator
from fusion.data.untrusted.reading import read_bytes
from fusion.files import missing_folder
from fusion.words import OneLineError

# Names of each column: our own first, then those of MSR-VTT, YouCook2 and HowTo100M. The first name
# that a file has counts; its other columns are ignored.
COLUMNS = {
    "video": ("video", "video_id", "video_path"),
    "start": ("start",),
    "end": ("end",),
    "text": ("text", "sentence", "caption"),
}
# Other names that people use, which are guessed.
ALSO = {
    "video": ("filename", "file_name", "file", "video_name", "video_file", "film", "path"),
    "start": ("start_time", "start_seconds", "start_sec", "begin", "from"),
    "end": ("end_time", "end_seconds", "end_sec", "stop", "stop_time", "to"),
    "text": ("captions", "description", "transcript"),
}
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
MOST_TEXT = 2**29  # bytes; a million captions have some 2**26
_UNIT = re.compile(r"[\s_]*[(\[]?\b(s|sec|secs|seconds)[)\]]$")  # as in "start (s)"


class CaptionError(OneLineError):
    """A caption file that cannot be read; one line with the file, the place and the way out."""


Row = tuple[int, list[str]]  # number of the line, from 1, and its fields


class Table(NamedTuple):
    """The lines of a table that are not blank."""

    rows: list[Row]
    separator: str
    read_as: str  # its encoding and separator, for messages


class Rows(NamedTuple):
    """The same, line by line: as lists of fields, all lines take ten times the memory of a file."""

    rows: Iterator[Row]
    separator: str
    read_as: str


def _raise(message: str) -> NoReturn:
    raise CaptionError(message)


def read_table(
    path: str | Path, guesses: Guesses, refuse: Callable[[str], None] = _raise, lists: bool = False
) -> Table:
    """Read a table, such as a csv file, as a whole; see :func:`stream_table`."""
    rows, separator, read_as = stream_table(path, guesses, refuse, lists)
    return Table(list(rows), separator, read_as)


def stream_table(
    path: str | Path, guesses: Guesses, refuse: Callable[[str], None] = _raise, lists: bool = False
) -> Rows:
    """Read a table, such as a csv file, line by line.

    The separator is a comma, semicolon, tab or ``|``, that with which the first line has the most
    known columns. Encodings: see :func:`.guess.decode`. Rows without any value are left out, and
    empty fields behind the last column.

    Args:
        path: the file.
        guesses: what is guessed is noted there.
        refuse: gets the message of each line that is no csv or has too many fields.
        lists: the first line may be a name, and no header.
    """
    text, encoding = _decoded(path, guesses)

    def merit(fields: Sequence[str]) -> tuple[int, int]:
        return len(find_columns(fields)), 0 if lists else len(fields)

    separator = find_separator(text, merit)
    name = "tab" if separator == "\t" else repr(separator)
    read_as = f"{encoding} with the separator {name}"
    if separator != ",":
        guesses.add(str(path), f"separator {name}")
    return Rows(_rows(path, text, separator, read_as, refuse), separator, read_as)


def _rows(
    path: str | Path, text: str, separator: str, read_as: str, refuse: Callable[[str], None]
) -> Iterator[Row]:
    """Give the rows that are not blank, cut to the columns of the first."""
    name = "tab" if separator == "\t" else repr(separator)
    width: int | None = None
    for line, row in _split_rows(text, separator):
        if isinstance(row, csv.Error):
            refuse(
                f"{path}, line {line}: not csv ({row}); put texts with commas or quotes in quotes"
                f" (read as {read_as})"
            )
            continue
        most = len(row) if width is None else width
        while len(row) > most and not row[-1].strip():
            row.pop()
        if not any(field.strip() for field in row) or (width is None and _says_separator(row)):
            continue
        if len(row) > most:
            refuse(
                f"{path}, line {line}: {len(row)} fields in {most} columns; put"
                f" texts with {'commas' if separator == ',' else name} in quotes (read as"
                f" {read_as})"
            )
        else:
            width = len(row) if width is None else width
            yield line, row


def _split_rows(text: str, separator: str) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """Give the fields of each row, or why it is none, and the line in which it ends.

    A quote that is never closed does not take the lines after its own with it.
    """
    start, places = 0, _Lines(text)
    while True:
        reader = csv.reader(places, delimiter=separator, strict=True)
        before = 0
        try:
            for row in reader:
                yield start + reader.line_num, row
                before = reader.line_num
                places.forget()
            return
        except csv.Error as error:
            start += before + 1
            places.go_behind_first()
            yield start, error


class _Lines:
    """Gives the lines of a text, and can go back to those of the row that was not finished."""

    def __init__(self, text: str) -> None:
        self._text, self._places = text, [0]  # where each line of the row begins, and the next

    def __iter__(self) -> Iterator[str]:
        while match := _LINE.match(self._text, self._places[-1]):
            self._places.append(match.end())
            yield match[0]

    def forget(self) -> None:
        """Begin another row."""
        del self._places[:-1]

    def go_behind_first(self) -> None:
        """Go back to the second line of the row, which is then the first of another."""
        self._places = [self._places[1]]


def read_text(path: str | Path, guesses: Guesses) -> str:
    """Read a file of any format, without its byte order mark.

    CaptionError: it is in no known encoding, see :func:`.guess.decode`.
    """
    return _decoded(path, guesses)[0]


def _decoded(path: str | Path, guesses: Guesses) -> tuple[str, str]:
    try:
        text, encoding = decode(read_bytes(path, MOST_TEXT))
    except FileNotFoundError as error:
        where = missing_folder(path)
        raise CaptionError(f"{path}: no such file{where}; check the path") from error
    except OSError as error:
        raise CaptionError(f"{path}: cannot be read ({error.strerror}); check it") from error
    except ValueError as error:
        raise CaptionError(f"{path}, {error}") from None
    if encoding != "utf-8":
        guesses.add(str(path), f"encoding {encoding}")
    return text, encoding.upper().replace("CP1252", "cp1252")


def _says_separator(row: Sequence[str]) -> bool:
    """Tell whether a row is the line ``sep=;``, which its own separator may have cut."""
    return bool(row) and (row[0] == "sep=" or said_separator(row[0]) is not None)


def find_columns(names: Sequence[str]) -> dict[str, str]:
    """Find which of ``COLUMNS`` there are, in any case, and their names here."""
    here = {_plain(name): name for name in reversed(names)}
    called = {c: next((n for n in (*COLUMNS[c], *ALSO[c]) if n in here), None) for c in COLUMNS}
    return {column: here[name] for column, name in called.items() if name is not None}


def _plain(name: str) -> str:
    """Write the name of a column in one way: ``Start Time (s)`` is ``start_time``."""
    return re.sub(r"[\s-]+", "_", _UNIT.sub("", name.strip().lower()))


def is_known(column: str, name: str) -> bool:
    """Tell whether a name of a column is one of ``COLUMNS``, and no guess."""
    return name.strip().lower() in COLUMNS[column]
