"""Open the files of others: ordinary files only, of a size that fits what they are for.

A pipe or a device never ends, or waits for ever; a text of gigabytes fills the memory before its
first line is looked at. So both are asked of the file before it is read.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

MOST_JSON = 1 << 28  # bytes; the largest files of answers and captions have a tenth of it
_WAYS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class NotAFileError(OSError):
    """What a path names is no ordinary file, but a pipe or a device."""


class TooLargeError(ValueError):
    """A file is larger than any that it is meant to be; one line without its name."""


def open_file(path: str | Path) -> BinaryIO:
    """Open an ordinary file for reading bytes; a link is followed.

    Raises:
        NotAFileError: it is a pipe or a device. OSError: as of ``open``, also of a folder.
    """
    descriptor = os.open(path, _WAYS)  # without waiting: of a pipe nobody may ever write
    try:
        kind = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(kind):
            if stat.S_ISDIR(kind):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
            raise NotAFileError(errno.EINVAL, "is a pipe or a device, not a file", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_bytes(path: str | Path, most: int) -> bytes:
    """Read a whole file of at most ``most`` bytes.

    Raises:
        TooLargeError: it is larger. OSError: it is no ordinary file, or cannot be read.
    """
    with open_file(path) as file:
        if (size := os.fstat(file.fileno()).st_size) > most:
            raise TooLargeError(
                f"it has {size / 2**20:.0f} MiB, and at most {most / 2**20:.0f} are read"
            )
        content = file.read(most + 1)
    if len(content) > most:  # it grew, or its size is not known, as of files in /proc
        raise TooLargeError(f"more than the {most / 2**20:.0f} MiB that are read")
    return content


def decode_json(content: str | bytes) -> Any:
    """Read JSON.

    ValueError: it is none, or so deeply nested that Python gives up (a RecursionError there).
    """
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("lists or objects are nested too deeply") from None


def read_json(path: str | Path, most: int = MOST_JSON) -> Any:
    """Read a file of JSON in UTF-8; ValueError: it is none or too large, OSError: as of a file."""
    return decode_json(read_bytes(path, most))
