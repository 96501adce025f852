"""Read pickles of plain data and numeric arrays from strangers: none can run code.

The published features and captions of this field are pickles, and a pickle is a program: it names
functions and calls them. There are three walls:

1. a scan of the whole file before anything is made: no instructions but those for plain data, no
   length and no memo number beyond the file (CPython gh-115952: 10 bytes could ask for 64 GB);
2. an unpickler that knows a short list of exact names, and has for each a stand-in that looks at
   its arguments first: NumPy's ``dtype`` and ``ndarray`` would believe what they hear of memory;
3. a walk through the result, which puts arrays in the place of stand-ins and lets nothing else by.

A hostile file can still waste time, or nest the tuples of a key so deeply that Python crashes.
"""

from __future__ import annotations

import functools
import gc
import math
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
from numpy.typing import NDArray

_NUMBERS_AND_TEXT = re.compile(r"b1|[iu][1248]|f[248]|c8|c16|[SU][1-9][0-9]{0,8}")
_PLAIN = {str, bytes, bytearray, int, float, complex, bool, type(None), set, frozenset}


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
                _scan(content)
            return _unpickle(file)
    except (PickleFileError, MemoryError):
        raise
    except OSError as error:
        raise PickleFileError(f"{path}: {error.strerror or error}; check the path") from error
    except _Refused as error:
        raise PickleFileError(
            f"{path}: refused, {error}; only lists, dicts, tuples, sets, text, bytes, numbers and "
            "numeric arrays are read"
        ) from error
    except Exception as error:  # anything: the bytes may come from anybody
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise PickleFileError(
            f"{path}: damaged or no pickle ({reason}); copy or download it again"
        ) from error


class _Refused(Exception):
    """What is not read, and why."""


def _refuse(why: str) -> NoReturn:
    raise _Refused(why)


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
        _refuse(f"a memo number at byte {position} is higher than a file this long needs")
    return end


def _refuse_instruction(code: int, position: int) -> NoReturn:
    if code in _SHORT:
        raise EOFError(f"the instruction at byte {position} is cut off")
    names = [known.name for known in pickletools.opcodes if ord(known.code) == code]
    if not names:
        raise ValueError(f"byte {position}, {code:#x}, is no instruction")
    _refuse(f"instruction {names[0]} at byte {position} is not one for plain data")


class _StandIn:
    """What the unpickler handles instead of the real thing; a pickle cannot change or hash it."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    def __setstate__(self, state: object) -> None:
        _refuse("it changes what is no data")


class _Function(_StandIn):
    __slots__ = ("_function",)

    def __init__(self, function: Any) -> None:
        self._function = function

    def __call__(self, *args: object) -> object:
        return self._function(*args)


class _Dtype(_StandIn):
    __slots__ = ("dtype",)

    def __init__(self, code: object, align: object = 0, copy: object = 1) -> None:
        if not (isinstance(code, str) and _NUMBERS_AND_TEXT.fullmatch(code)):
            _refuse(
                f"an array of dtype {short(code)} is neither of numbers nor of text, and may hold "
                "objects that run code"
            )
        self.dtype = np.dtype(code)

    def __setstate__(self, state: object) -> None:
        match state:
            case (3, "<" | ">" | "=" | "|" as order, None, None, None, _, _, _):
                self.dtype = self.dtype.newbyteorder(order)
            case _:  # arrays in an element, or fields
                _refuse(f"a dtype with the state {short(state)} is not of plain numbers or text")


class _Array(_StandIn):
    __slots__ = ("array",)
    array: NDArray[Any]

    def __setstate__(self, state: object) -> None:
        if type(state) is not tuple or len(state) != 5:
            _refuse(f"an array with the state {short(state)} is not one of NumPy's")
        _, shape, dtype, fortran, data = state
        if type(data) is str:  # of Python 2
            data = data.encode("latin-1")
        real = _checked(shape, dtype, data)
        self.array = np.empty(0)
        self.array.__setstate__((1, shape, real, bool(fortran), data))  # type: ignore[arg-type]


def _checked(shape: Any, dtype: Any, data: Any) -> np.dtype[Any]:
    """Check that the data are as many bytes as shape and dtype need, not more and not fewer."""
    if type(dtype) is not _Dtype:
        _refuse(f"an array has {short(dtype)} for a dtype")
    if type(data) is not bytes and type(data) is not bytearray:
        _refuse(f"an array holds a {type(data).__name__} instead of bytes")
    fits = type(shape) is tuple and len(shape) <= 64
    fits = fits and all(type(length) is int and length >= 0 for length in shape)
    if not fits or math.prod(shape) * dtype.dtype.itemsize != len(data):
        _refuse(f"an array of shape {short(shape)} and {dtype.dtype} has {len(data)} bytes")
    return dtype.dtype


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> _Array:
    flat = np.frombuffer(data, _checked(shape, dtype, data))
    result = _Array()
    if axes is None:
        result.array = flat.reshape(shape, order=order)
    else:  # NumPy 2.3: an array whose axes were swapped
        result.array = flat.reshape(shape).transpose(axes)
    return result


def _scalar(dtype: Any, data: Any) -> object:
    data = data.encode("latin-1") if type(data) is str else data  # of Python 2
    return np.frombuffer(data, _checked((), dtype, data))[0]


def _encode(text: object, encoding: object) -> bytes:
    """Stand for ``codecs.encode``, which knows codecs that open files or unpack bombs."""
    if not (isinstance(text, str) and encoding in ("latin1", "latin-1")):
        _refuse(f"codec {short(encoding)} is not latin1")
    return text.encode("latin-1")


def _bytearray(data: object = b"", encoding: object = "latin-1") -> bytearray:
    if not isinstance(data, bytes):  # a number would be that many bytes
        data = _encode(data, encoding)
    return bytearray(data)


def _of_list(kind: Any) -> Any:
    """Let a collection be made of a list, or of nothing."""

    def make(items: object = ()) -> object:
        if type(items) not in (list, tuple):
            _refuse(f"{kind.__name__} is made of {short(items)} instead of a list")
        return kind(items)

    return make


_BUILTINS = {
    "bytearray": _bytearray,
    "bytes": lambda: b"",  # before protocol 3, for the empty one; others are encoded text
    "complex": lambda real, imaginary: complex(float(real), float(imaginary)),
    "frozenset": _of_list(frozenset),
    "set": _of_list(set),
}
_NAMES: dict[tuple[str, str], _StandIn] = {
    ("numpy", "ndarray"): _StandIn(),
    ("numpy", "dtype"): _Function(_Dtype),
    ("collections", "OrderedDict"): _Function(_of_list(OrderedDict)),
    ("_codecs", "encode"): _Function(_encode),
}
for _core in ("numpy.core", "numpy._core"):
    _NAMES[f"{_core}.multiarray", "_reconstruct"] = _Function(
        lambda kind, shape, code: _Array()
    )  # kind: ndarray
    _NAMES[f"{_core}.multiarray", "scalar"] = _Function(_scalar)
    _NAMES[f"{_core}.numeric", "_frombuffer"] = _Function(_from_buffer)
for _module in ("builtins", "__builtin__"):
    _NAMES |= {(_module, name): _Function(make) for name, make in _BUILTINS.items()}


class _Unpickler(pickle.Unpickler):
    """Python's own, in C, with nothing behind the names."""

    has_names = False

    def find_class(self, module: str, name: str) -> Any:
        self.has_names = True
        if (module, name) not in _NAMES:
            _refuse(f"it names {short(f'{module}.{name}')}, which is no data and may run code")
        return _NAMES[module, name]


def _unpickle(file: BinaryIO) -> Any:
    unpickler = _Unpickler(file, encoding="latin1")
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
        if kind is _Array:
            return value.array  # an AttributeError where it was never filled
        if kind in _PLAIN or isinstance(value, np.generic):
            return value
        if id(value) in settled:
            return settled[id(value)][1]
        if kind is tuple:
            settled[id(value)] = value, tuple(map(settle, value))
        elif kind in (list, dict) or (kind is OrderedDict and not vars(value)):
            settled[id(value)] = value, value
            unseen.append(value)
        else:
            _refuse(f"it holds {kind.__name__.strip('_')}, which is no data")
        return settled[id(value)][1]

    result = settle(root)
    while unseen:
        container = unseen.pop()
        items = enumerate(container) if isinstance(container, list) else container.items()
        for key, item in items:
            if type(item) not in _PLAIN:
                container[key] = settle(item)
    return result
