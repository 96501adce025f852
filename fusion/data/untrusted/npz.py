"""Read arrays from the ``.npz`` files of others: no code runs, and sizes are checked first."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fusion.data.untrusted.reading import open_file
from fusion.data.untrusted.unpickler import printable

MOST_BYTES = 4 << 30  # of an array; the features of a day of video are smaller
HEADER = 1 << 16
_NUMPY_WRITES = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# Real arrays are compressed to a half (features, spectrograms), to a hundredth (a still picture) or
# to a thousandth (silence). Files that are to fill the memory are smaller still. The spectrogram of
# two hours has 128 MiB, and no silence is longer.
MOST_TIMES_LARGER = 200  # than its file
ANY_TIMES_LARGER = 128 << 20
# Of all arrays of a file of names and numbers together; names of one length repeat themselves
ALL_TIMES_LARGER, ALL_LARGER, MOST_ARRAYS = 100, 64 << 20, 10_000


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
        raise NpzError(f"{path} is damaged ({_line(error)})") from error


def read_arrays(source: Path | bytes) -> dict[str, NDArray[Any]]:
    """Read all arrays of a file, or of its content: the scores of an evaluation.

    Raises:
        NpzError: it is damaged, holds objects, or would be much larger than it is; without its
            name where the content is given.
        OSError: it cannot be read.
    """
    name = f"{source}: " if isinstance(source, Path) else ""
    with io.BytesIO(source) if isinstance(source, bytes) else open_file(source) as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        try:
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
                total = sum(member.file_size for member in members)
                if total > ALL_LARGER + ALL_TIMES_LARGER * size or len(members) > MOST_ARRAYS:
                    raise NpzError(
                        f"{name}its {len(members)} arrays claim to be {total} bytes, in a file of"
                        f" {size}, as no scores are"
                    )
                return {
                    member.filename.removesuffix(".npy"): _member(archive, member, name)
                    for member in members
                }
        except (NpzError, MemoryError):
            raise
        except Exception as error:  # damage raises a dozen kinds
            raise NpzError(f"{name}damaged ({_line(error)})") from error


def _read(path: Path, key: str) -> NDArray[Any]:
    with open_file(path) as file, zipfile.ZipFile(file) as archive:
        if f"{key}.npy" not in archive.namelist():
            names = ", ".join(printable(n.removesuffix(".npy")) for n in archive.namelist()[:9])
            raise NpzError(f"{path} has no array {key!r}, but {names or 'none'}")
        member = archive.getinfo(f"{key}.npy")
        size_of_file = path.stat().st_size
        most = ANY_TIMES_LARGER + MOST_TIMES_LARGER * size_of_file
        if member.file_size > most or member.compress_type not in _NUMPY_WRITES:
            raise NpzError(
                f"{path}: {key} claims to be {member.file_size} bytes, in a file of"
                f" {size_of_file}, as no features are; write them with numpy.savez"
            )
        return _member(archive, member, f"{path}: ")


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> NDArray[Any]:
    """Read an array; ``name`` is what an error begins with."""
    key = member.filename.removesuffix(".npy")
    if member.compress_type not in _NUMPY_WRITES:
        raise NpzError(f"{name}{printable(key)} is packed in a way that NumPy does not know")
    with archive.open(member) as file:
        return _array(file, member.file_size, f"{name}{printable(key)}")


def read_npy(path: Path) -> NDArray[Any]:
    """Read the array of a ``.npy`` file.

    Raises:
        NpzError: it is damaged, holds objects, or is not as large as it says.
        OSError: it cannot be read.
    """
    with open_file(path) as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        try:
            return _array(file, size, f"{path}: its array")
        except (NpzError, MemoryError):
            raise
        except Exception as error:
            raise NpzError(f"{path} is damaged ({_line(error)})") from error


def _array(file: IO[bytes], given: int, name: str) -> NDArray[Any]:
    """Read an array of ``given`` bytes, with its header; ``name`` is what an error begins with."""
    npy = np.lib.format
    is_1 = npy.read_magic(file) == (1, 0)
    header = npy.read_array_header_1_0(file) if is_1 else npy.read_array_header_2_0(file)
    shape, in_columns, dtype = header
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if dtype.hasobject:
        raise NpzError(f"{name} holds objects, which could run code")
    if not size <= given <= size + HEADER or size > MOST_BYTES:
        raise NpzError(f"{name} claims to be {shape} {dtype}, which its {given} bytes do not hold")
    data = np.frombuffer(file.read(size), dtype)
    return data.reshape(shape, order="F" if in_columns else "C")


def _line(error: Exception) -> str:
    """Say what an error says, without NumPy's advice to read objects, whose code would run."""
    if "allow_pickle" in str(error):
        return "its header is not one that NumPy writes, or it holds objects"
    return printable(" ".join(f"{type(error).__name__}: {error}".split()), 300)
