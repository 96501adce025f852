"""Read arrays from the ``.npz`` files of others: no code runs, and sizes are checked first."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_BYTES = 4 << 30  # of an array; the features of a day of video are smaller
HEADER = 1 << 16
_NUMPY_WRITES = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# Real arrays are compressed to a half (features, spectrograms), to a hundredth (a still picture) or
# to a thousandth (silence). Files that are to fill the memory are smaller still. The spectrogram of
# two hours has 128 MiB, and no silence is longer.
MOST_TIMES_LARGER = 200  # than its file
ANY_TIMES_LARGER = 128 << 20


class NpzError(ValueError):
    """An array cannot be read; the message names the file."""


def read_npz(path: Path, key: str) -> NDArray[Any]:
    """Read the array ``key`` of a file.

    Raises:
        NpzError: it is missing, damaged, holds objects, or is larger than it says.
    """
    try:
        return _read(path, key)
    except (NpzError, MemoryError):
        raise
    except FileNotFoundError:
        raise NpzError(f"{path} is missing") from None
    except Exception as error:
        # Damage raises a dozen kinds of errors in zipfile, zlib and numpy.
        raise NpzError(f"{path} is damaged ({type(error).__name__}: {error})") from error


def _read(path: Path, key: str) -> NDArray[Any]:
    with zipfile.ZipFile(path) as archive:
        if f"{key}.npy" not in archive.namelist():
            names = ", ".join(name.removesuffix(".npy") for name in archive.namelist()[:9])
            raise NpzError(f"{path} has no array {key!r}, but {names or 'none'}")
        member = archive.getinfo(f"{key}.npy")
        size_of_file = path.stat().st_size
        most = ANY_TIMES_LARGER + MOST_TIMES_LARGER * size_of_file
        if member.file_size > most or member.compress_type not in _NUMPY_WRITES:
            raise NpzError(
                f"{path}: {key} claims to be {member.file_size} bytes, in a file of"
                f" {size_of_file}, as no features are; write them with numpy.savez"
            )
        with archive.open(member) as file:
            npy = np.lib.format
            is_1 = npy.read_magic(file) == (1, 0)
            header = npy.read_array_header_1_0(file) if is_1 else npy.read_array_header_2_0(file)
            shape, in_columns, dtype = header
            size = int(np.prod(shape, dtype=object)) * dtype.itemsize
            if dtype.hasobject:
                raise NpzError(f"{path}: {key} holds objects, which could run code")
            if not size <= member.file_size <= size + HEADER or size > MOST_BYTES:
                raise NpzError(
                    f"{path}: {key} claims to be {shape} {dtype}, which its {member.file_size}"
                    " bytes do not hold"
                )
            data = np.frombuffer(file.read(size), dtype)
    return data.reshape(shape, order="F" if in_columns else "C")
