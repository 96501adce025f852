"""Arrays from the ``.npz`` files of others: nothing runs, none is larger than its file says."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_BYTES = 4 << 30  # of an array; the features of a day of video are smaller
HEADER = 1 << 16
_NUMPY_WRITES = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# Compressed, features and spectrograms take half of their bytes, a frozen picture a hundredth, and
# silence a thousandth: as do the zeros of somebody who wants to fill the memory. No silence lasts
# for the two hours of spectrogram that 128 MiB hold.
MOST_TIMES_LARGER = 200  # than its file
ANY_TIMES_LARGER = 128 << 20


def read_npz(path: Path, key: str) -> NDArray[Any]:
    """Read one array.

    Args:
        path: the file.
        key: name of the array.

    Raises:
        ValueError: it is missing, damaged, holds objects, or is larger than it says.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            try:
                member = archive.getinfo(f"{key}.npy")
            except KeyError:
                names = ", ".join(name.removesuffix(".npy") for name in archive.namelist()[:9])
                raise ValueError(f"{path} has no array {key!r}, but {names or 'none'}") from None
            size_of_file = path.stat().st_size
            most = ANY_TIMES_LARGER + MOST_TIMES_LARGER * size_of_file
            if member.file_size > most or member.compress_type not in _NUMPY_WRITES:
                raise ValueError(
                    f"{path}: {key} claims to be {member.file_size} bytes, in a file of"
                    f" {size_of_file}, as no features are; write them by numpy.savez"
                )
            with archive.open(member) as file:
                shape, in_columns, dtype = _read_header(file)
                size = int(np.prod(shape, dtype=object)) * dtype.itemsize
                if dtype.hasobject:
                    raise ValueError(f"{path}: {key} holds objects, which could run code")
                if not size <= member.file_size <= size + HEADER or size > MOST_BYTES:
                    raise ValueError(
                        f"{path}: {key} claims to be {shape} {dtype}, which its {member.file_size}"
                        " bytes do not hold"
                    )
                data = np.frombuffer(file.read(size), dtype)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing") from None
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged ({error})") from None
    return data.reshape(shape, order="F" if in_columns else "C")


def _read_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)
