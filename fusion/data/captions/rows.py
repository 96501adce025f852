"""The lines and the columns of tables such as csv files."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from fusion.data.captions.guess import Guesses, decode, find_separator, said_separator
from fusion.files import missing_folder

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
_UNIT = re.compile(r"[\s_]*[(\[]?\b(s|sec|secs|seconds)[)\]]$")  # as in "start (s)"


class CaptionError(ValueError):
    """A caption file that cannot be read; one line with the file, the place and the way out."""


class Table(NamedTuple):
    """The lines of a table that are not blank."""

    rows: list[tuple[int, list[str]]]  # number of the line, from 1, and its fields
    separator: str
    read_as: str  # its encoding and separator, for messages


def _raise(message: str) -> NoReturn:
    raise CaptionError(message)


def read_table(
    path: str | Path, guesses: Guesses, refuse: Callable[[str], None] = _raise, lists: bool = False
) -> Table:
    """Read a table, such as a csv file.

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
    rows: list[tuple[int, list[str]]] = []
    for line, row in _split_rows(text, separator):
        if isinstance(row, csv.Error):
            refuse(
                f"{path}, line {line}: not csv ({row}); put texts with commas or quotes in quotes"
                f" (read as {read_as})"
            )
            continue
        width = len(rows[0][1]) if rows else len(row)
        while len(row) > width and not row[-1].strip():
            row.pop()
        if not any(field.strip() for field in row) or (not rows and _says_separator(row)):
            continue
        if len(row) > width:
            refuse(
                f"{path}, line {line}: {len(row)} fields in {width} columns; put"
                f" texts with {'commas' if separator == ',' else name} in quotes (read as"
                f" {read_as})"
            )
        else:
            rows.append((line, row))
    return Table(rows, separator, read_as)


def _split_rows(text: str, separator: str) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """Give the fields of each row, or why it is none, and the line in which it ends.

    A quote that is never closed does not take the lines after its own with it.
    """
    lines = list(io.StringIO(text, newline=""))
    start = 0
    while start < len(lines):
        reader = csv.reader(itertools.islice(lines, start, None), delimiter=separator, strict=True)
        before = 0
        try:
            for row in reader:
                yield start + reader.line_num, row
                before = reader.line_num
            return
        except csv.Error as error:
            start += before + 1
            yield start, error


def read_text(path: str | Path, guesses: Guesses) -> str:
    """Read a file of any format, without its byte order mark.

    CaptionError: it is in no known encoding, see :func:`.guess.decode`.
    """
    return _decoded(path, guesses)[0]


def _decoded(path: str | Path, guesses: Guesses) -> tuple[str, str]:
    try:
        text, encoding = decode(Path(path).read_bytes())
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
