"""Read pickles of plain data and numeric arrays from strangers: none can run code.

The published features and captions of this field are pickles, and a pickle is a program: it names
functions and calls them. There are three walls:

1. a scan of the whole file before anything is made: no instructions but those for plain data, no
   length and no memo number beyond the file (CPython gh-115952: 10 bytes could ask for 64 GB);
2. an unpickler that knows a short list of exact names, and has for each a stand-in that looks at
   its arguments first: NumPy's ``dtype`` and ``ndarray`` would believe what they hear of memory,
   and each can copy what the file has once a thousand times;
3. a walk through the result, which puts arrays in the place of stand-ins and lets nothing else by.

A hostile file can still waste time, or nest the tuples of a key so deeply that Python crashes.
"""

from __future__ import annotations

import functools
import gc
import mmap
import os
import pickle
import pickletools
import re
from collections import OrderedDict
from pathlib import Path
from reprlib import repr as short
from typing import Any, BinaryIO, NoReturn

import numpy as np

from fusion.data.untrusted.pickle_standins import (
    ArrayStandIn,
    OrderedStandIn,
    Refused,
    refuse,
    stand_ins,
)

_PLAIN = {str, bytes, bytearray, int, float, complex, bool, type(None), set, frozenset}


BEGINNINGS = {  # of files that are often taken for pickles
    b"PK\x03\x04": "a file of PyTorch, or another zip; tools/convert.py reads models",
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.": "a file of PyTorch; tools/convert.py reads models",
    b"\x93NUMPY": "a NumPy array",
    b"\x89HDF": "an HDF5 file",
    b"\x1f\x8b": "compressed; unpack it first",
    b"<": "a web page, which a site shows instead of a download; download it again, in a browser",
}


class PickleFileError(ValueError):
    """A pickle that is refused, damaged or none; one line with file, reason and way out."""


def load_pickle(path: str | Path, max_bytes: int | None = None) -> Any:
    """Read a pickle of lists, dicts, tuples, sets, strings, numbers, bytes and numeric arrays.

    Any protocol, of Python 2 (its strings as latin-1) and of NumPy 1 too. Arrays and NumPy numbers
    are boolean, integer, float, complex or fixed-width text.

    Args:
        path: the file. The memory needed is proportional to its size.
        max_bytes: refuse a longer file; by default none is too long.

    Raises:
        PickleFileError: no such file, too long, damaged, or not only plain data.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if max_bytes is not None and size > max_bytes:
                raise PickleFileError(
                    f"{path}: {size} bytes, more than the {max_bytes} that are allowed; check that"
                    " it is the right file"
                )
            if not size:
                raise PickleFileError(f"{path}: the file is empty; copy or download it again")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                _check_kind(path, content[:512])
                _scan(content)
            return _unpickle(file)
    except (PickleFileError, MemoryError):
        raise
    except OSError as error:
        raise PickleFileError(f"{path}: {error.strerror or error}; check the path") from error
    except Refused as error:
        raise PickleFileError(
            f"{path}: refused, {error}; only lists, dicts, tuples, sets, text, bytes, numbers and "
            "numeric arrays are read"
        ) from error
    except Exception as error:  # anything: the bytes may come from anybody
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        if isinstance(error, ValueError | EOFError) and _is_text(path):
            reason = "it begins as a text does"
        raise PickleFileError(
            f"{path}: damaged or no pickle ({reason}); copy or download it again"
        ) from error


_COUNTED = {ord("T"): 4, ord("B"): 4, ord("X"): 4, 0x8B: 4, 0x8D: 8, 0x8E: 8, 0x96: 8}  # bytes
_NO_ARGUMENT = b"(012NRbadeltsu})]\x85\x86\x87\x88\x89\x8f\x90\x91\x93\x94"
_SHORT = _NO_ARGUMENT + b"hqK\x80UC\x8a\x8cTBX\x8bJjMGILFSVgcpr"
_STOP, _FRAME, _PUT, _LONG_BINPUT = ord("."), 0x95, ord("p"), ord("r")


@functools.cache
def _instructions(small_numbers: int, small_bytes: int) -> re.Pattern[bytes]:
    """Match a run of short instructions; in a loop the scan would take longer than the loading.

    Args:
        small_numbers: decimal digits of a memo number that cannot be too high.
        small_bytes: the same in bytes.
    """
    no_argument = b"[%b]*" % re.escape(_NO_ARGUMENT)
    counted1 = b"|".join(re.escape(bytes([n])) + b".{%d}" % n for n in range(256))
    counted4 = b"|".join(re.escape(bytes([n])) + b"\0\0\0.{%d}" % n for n in range(256))
    kinds = [
        b"[hqK\x80].",
        b"[UC\x8a\x8c](?:%b)" % counted1,
        b"[TBX\x8b](?:%b)" % counted4,
        b"[Jj].{4}",
        b"M..",
        b"G.{8}",
        b"[ILFSVg][^\n]*\n",
        b"c[^\n]*\n[^\n]*\n",
        b"p[0-9]{1,%d}\n" % small_numbers,
        b"r.{%d}\0{%d}" % (small_bytes, 4 - small_bytes),
    ]
    run = b"%b(?:(?:%b)%b){0,10000}" % (no_argument, b"|".join(kinds), no_argument)
    return re.compile(run, re.DOTALL)


def _scan(content: mmap.mmap) -> None:
    """Go through the instructions up to the last without following them.

    Instructions must not cross the end of a frame: there the unpickler, which reads frames whole,
    would see others than the scan.
    """
    size = len(content)
    digits = max(1, len(str(size)) - 1)
    run: Any = _instructions(digits, min(4, (size.bit_length() - 1) // 8)).match  # never None
    position, end = 0, size
    while position < size:
        if position == end:
            end = size
        before, position = position, run(content, position, end).end()
        if position == end:
            continue
        start, code = position, content[position]
        if code in _COUNTED:
            data = position + 1 + _COUNTED[code]
            position = data + int.from_bytes(content[position + 1 : data], "little")
        elif code == _FRAME and end == size:
            position += 9
            end = position + int.from_bytes(content[start + 1 : position], "little")
        elif code in (_PUT, _LONG_BINPUT):
            position = _long_memo(content, position)
        elif code == _STOP:
            return
        elif start == before:
            _refuse_instruction(code, position)
        if position > end or end > size:
            raise EOFError(f"what begins at byte {start} is longer than the file or its frame")
    raise EOFError("the file ends before the pickle does")


def _check_kind(path: str | Path, head: bytes) -> None:
    """Refuse files that are often taken for pickles, by how they begin or by their ending."""
    kinds = [what for beginning, what in BEGINNINGS.items() if head.startswith(beginning)]
    if Path(path).suffix.lower() in (".csv", ".json", ".txt", ".vtt", ".srt", ".yaml"):
        kinds.append(f"text, as its ending {Path(path).suffix} says")
    if kinds:
        raise PickleFileError(f"{path}: no pickle but {kinds[0]}")


def _is_text(path: str | Path) -> bool:
    with open(path, "rb") as file:
        head = file.read(200).decode("utf-8", errors="replace")
    return all(c.isprintable() or c.isspace() for c in head[:-4])  # a letter may be cut in two


def _long_memo(content: mmap.mmap, position: int) -> int:
    """Check a high memo number; find the end of its instruction."""
    if content[position] == _LONG_BINPUT:
        end = position + 5
        number = int.from_bytes(content[position + 1 : end], "little")
    else:
        line = content[position + 1 : position + 22].partition(b"\n")
        end = position + 1 + len(line[0]) + 1
        number = int(line[0]) if line[1] else len(content) + 1
    if not 0 <= number <= len(content) and end <= len(content):
        refuse(f"a memo number at byte {position} is higher than a file this long needs")
    return end


def _refuse_instruction(code: int, position: int) -> NoReturn:
    if code in _SHORT:
        raise EOFError(f"the instruction at byte {position} is cut off")
    names = [known.name for known in pickletools.opcodes if ord(known.code) == code]
    if not names:
        raise ValueError(f"byte {position}, {code:#x}, is no instruction")
    refuse(f"instruction {names[0]} at byte {position} is not one for plain data")


class _Unpickler(pickle.Unpickler):
    """Python's own, in C, with nothing behind the names."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")
        self._stand_ins = stand_ins(os.fstat(file.fileno()).st_size)
        self.has_names = False

    def find_class(self, module: str, name: str) -> Any:
        self.has_names = True
        if (module, name) not in self._stand_ins:
            refuse(f"it names {short(f'{module}.{name}')}, which is no data and may run code")
        return self._stand_ins[module, name]


def _unpickle(file: BinaryIO) -> Any:
    unpickler = _Unpickler(file)
    looks_for_garbage = gc.isenabled()
    gc.disable()  # nothing that is made here is garbage; looking for it can double the time
    try:
        value = unpickler.load()
        return _settle(value) if unpickler.has_names else value
    finally:
        if looks_for_garbage:
            gc.enable()


def _settle(root: object) -> object:
    """Put arrays where their stand-ins are; refuse everything that is no data."""
    settled: dict[int, tuple[object, object]] = {}  # with the old object, so that it keeps its id
    unseen: list[Any] = []

    def settle(value: Any) -> Any:
        kind = type(value)
        if kind is ArrayStandIn:
            return value.array  # an AttributeError where it was never filled
        if kind in _PLAIN or isinstance(value, np.generic):
            return value
        if id(value) in settled:
            return settled[id(value)][1]
        if kind is tuple:
            settled[id(value)] = value, tuple(map(settle, value))
        elif kind in (list, dict, OrderedStandIn):
            result = OrderedDict(value) if kind is OrderedStandIn else value
            settled[id(value)] = value, result
            unseen.append(result)
        else:
            refuse(f"it holds {kind.__name__.strip('_')}, which is no data")
        return settled[id(value)][1]

    result = settle(root)
    while unseen:
        container = unseen.pop()
        items = enumerate(container) if isinstance(container, list) else container.items()
        for key, item in items:
            if type(item) not in _PLAIN:
                container[key] = settle(item)
    return result
