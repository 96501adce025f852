"""What :mod:`fusion.data.safe_pickle` makes in place of what a pickle names."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections import OrderedDict
from reprlib import repr as short
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray

_NUMBERS_AND_TEXT = re.compile(r"b1|[iu][1248]|f[248]|c8|c16|[SU][1-9][0-9]{0,8}")


class Refused(Exception):
    """What is not read, and why."""


def refuse(why: str) -> NoReturn:
    """Stop reading.

    Raises:
        Refused: always.
    """
    raise Refused(why)


class StandIn:
    """What the unpickler handles instead of the real thing; a pickle cannot change or hash it."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    def __setstate__(self, state: object) -> None:
        refuse("it changes what is no data")


class _Function(StandIn):
    __slots__ = ("_function",)

    def __init__(self, function: Any) -> None:
        self._function = function

    def __call__(self, *args: object) -> object:
        return self._function(*args)


class _Dtype(StandIn):
    __slots__ = ("dtype",)

    def __init__(self, code: object, align: object = 0, copy: object = 1) -> None:
        if not (isinstance(code, str) and _NUMBERS_AND_TEXT.fullmatch(code)):
            refuse(
                f"an array of dtype {short(code)} is neither of numbers nor of text, and may hold "
                "objects that run code"
            )
        self.dtype = np.dtype(code)

    def __setstate__(self, state: object) -> None:
        match state:
            case (3, "<" | ">" | "=" | "|" as order, None, None, None, _, _, _):
                self.dtype = self.dtype.newbyteorder(order)
            case _:  # arrays in an element, or fields
                refuse(f"a dtype with the state {short(state)} is not of plain numbers or text")


class ArrayStandIn(StandIn):
    """Stands for an array until all is read."""

    __slots__ = ("array",)
    array: NDArray[Any]

    def __setstate__(self, state: object) -> None:
        if type(state) is not tuple or len(state) != 5:
            refuse(f"an array with the state {short(state)} is not one of NumPy's")
        _, shape, dtype, fortran, data = state
        if type(data) is str:  # of Python 2
            data = data.encode("latin-1")
        real = _checked(shape, dtype, data)
        self.array = np.empty(0)
        self.array.__setstate__((1, shape, real, bool(fortran), data))  # type: ignore[arg-type]


def _checked(shape: Any, dtype: Any, data: Any) -> np.dtype[Any]:
    """Check that the data are as many bytes as shape and dtype need, not more and not fewer."""
    if type(dtype) is not _Dtype:
        refuse(f"an array has {short(dtype)} for a dtype")
    if type(data) is not bytes and type(data) is not bytearray:
        refuse(f"an array holds a {type(data).__name__} instead of bytes")
    fits = type(shape) is tuple and len(shape) <= 64
    fits = fits and all(type(length) is int and length >= 0 for length in shape)
    if not fits or math.prod(shape) * dtype.dtype.itemsize != len(data):
        refuse(f"an array of shape {short(shape)} and {dtype.dtype} has {len(data)} bytes")
    return dtype.dtype


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> ArrayStandIn:
    flat = np.frombuffer(data, _checked(shape, dtype, data))
    result = ArrayStandIn()
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
        refuse(f"codec {short(encoding)} is not latin1")
    return text.encode("latin-1")


def _bytearray(data: object = b"", encoding: object = "latin-1") -> bytearray:
    if not isinstance(data, bytes):  # a number would be that many bytes
        data = _encode(data, encoding)
    return bytearray(data)


def _of_list(kind: Any) -> Any:
    """Let a collection be made of a list, or of nothing."""

    def make(items: object = ()) -> object:
        if type(items) not in (list, tuple):
            refuse(f"{kind.__name__} is made of {short(items)} instead of a list")
        return kind(items)

    return make


class _Storage(StandIn):
    __slots__ = ("flat",)

    def __init__(self, content: object) -> None:
        """Read the numbers of a tensor, which ``torch.save`` wrote; AVLnet's files have tensors."""
        if type(content) is str:
            content = content.encode("latin-1")
        if type(content) is not bytes:
            refuse(f"a tensor's numbers are {short(content)} instead of bytes")
        try:
            storage = torch.load(io.BytesIO(content), weights_only=True)
            with warnings.catch_warnings():  # of a class that only old files need
                warnings.simplefilter("ignore")
                untyped = storage.untyped()
        except Exception:  # torch has many kinds of them
            refuse("a tensor's numbers are not what torch saves")
        if untyped.nbytes() > len(content):
            refuse("a tensor's numbers are more than its bytes")
        self.flat = torch.tensor([], dtype=storage.dtype).set_(untyped).numpy()


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: object) -> ArrayStandIn:
    """Make an array of the part of its numbers that a tensor shows."""
    numbers = (offset, *shape, *strides)
    whole = all(type(number) is int and number >= 0 for number in numbers)
    if type(storage) is not _Storage or len(shape) != len(strides) or not whole:
        refuse("a tensor is not put together as torch does it")
    last = sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if math.prod(shape) and offset + last >= len(storage.flat):
        refuse(f"a tensor of shape {short(shape)} shows more numbers than it has")
    if math.prod(shape) > len(storage.flat):
        refuse(f"a tensor of shape {short(shape)} repeats its numbers")
    bytes_apart = [stride * storage.flat.itemsize for stride in strides]
    result = ArrayStandIn()
    part = storage.flat[offset:]
    result.array = np.lib.stride_tricks.as_strided(part, shape, bytes_apart).copy()
    return result


_BUILTINS = {
    "bytearray": _bytearray,
    "bytes": lambda: b"",  # before protocol 3, for the empty one; others are encoded text
    "complex": lambda real, imaginary: complex(float(real), float(imaginary)),
    "frozenset": _of_list(frozenset),
    "set": _of_list(set),
}
NAMES: dict[tuple[str, str], StandIn] = {
    ("numpy", "ndarray"): StandIn(),
    ("numpy", "dtype"): _Function(_Dtype),
    ("collections", "OrderedDict"): _Function(_of_list(OrderedDict)),
    ("_codecs", "encode"): _Function(_encode),
    ("torch.storage", "_load_from_bytes"): _Function(_Storage),
    ("torch._utils", "_rebuild_tensor_v2"): _Function(_tensor),
    ("torch._utils", "_rebuild_tensor"): _Function(_tensor),
}
for _core in ("numpy.core", "numpy._core"):
    NAMES[f"{_core}.multiarray", "_reconstruct"] = _Function(
        lambda kind, shape, code: ArrayStandIn()
    )  # kind: ndarray
    NAMES[f"{_core}.multiarray", "scalar"] = _Function(_scalar)
    NAMES[f"{_core}.numeric", "_frombuffer"] = _Function(_from_buffer)
for _module in ("builtins", "__builtin__"):
    NAMES |= {(_module, name): _Function(make) for name, make in _BUILTINS.items()}
