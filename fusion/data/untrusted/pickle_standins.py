"""What :mod:`fusion.data.untrusted.pickle` makes in place of what a pickle names.

A pickle names what it holds a second time in two bytes, so a call that copies or unpacks its
argument could turn a short file into gigabytes. Each file has a :class:`Budget` for that.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial
from reprlib import repr as short
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from fusion.data.untrusted.pickle_tensors import read_storage

_NUMBERS_AND_TEXT = re.compile(r"b1|[iu][1248]|f[248]|c8|c16|[SU][1-9][0-9]{0,8}")


class Refused(Exception):
    """What is not read, and why."""


def refuse(why: str) -> NoReturn:
    """Stop reading.

    Raises:
        Refused: always.
    """
    raise Refused(why)


class Budget:
    """What the calls of one file may make; what pickling writes never comes near it.

    Old protocols have bytes as text, which becomes bytes, then an array: three of each in the file.
    An item of a set or a dict takes at least a byte there.

    Args:
        size: of the file in bytes.
    """

    def __init__(self, size: int) -> None:
        self._bytes, self._items = 4 * size, size

    def take(self, num_bytes: int = 0, items: int = 0) -> None:
        """Ask before something is made.

        Raises:
            Refused: the file has made too much.
        """
        self._bytes -= num_bytes
        self._items -= items
        if self._bytes < 0 or self._items < 0:
            refuse("it takes the same data again and again, to fill the memory")


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

    __slots__ = ("_budget", "array")
    array: NDArray[Any]

    def __init__(self, budget: Budget) -> None:
        self._budget = budget

    def __setstate__(self, state: object) -> None:
        if type(state) is not tuple or len(state) != 5:
            refuse(f"an array with the state {short(state)} is not one of NumPy's")
        _, shape, dtype, fortran, data = state
        data = _as_bytes(self._budget, data)
        real = _checked(self._budget, shape, dtype, data)
        self.array = np.empty(0)
        self.array.__setstate__((1, shape, real, bool(fortran), data))  # type: ignore[arg-type]


class OrderedStandIn(dict[Any, Any]):
    """Stands for an ``OrderedDict``, to which a pickle could add attributes of another dict."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        refuse("it changes an OrderedDict, which is no data")


def _as_bytes(budget: Budget, data: Any) -> Any:
    if type(data) is not str:
        return data
    budget.take(len(data))
    return data.encode("latin-1")  # of Python 2


def _checked(budget: Budget, shape: Any, dtype: Any, data: Any) -> np.dtype[Any]:
    """Check that the data are as many bytes as shape and dtype need, not more and not fewer."""
    if type(dtype) is not _Dtype:
        refuse(f"an array has {short(dtype)} for a dtype")
    if type(data) is not bytes and type(data) is not bytearray:
        refuse(f"an array holds a {type(data).__name__} instead of bytes")
    fits = type(shape) is tuple and len(shape) <= 64
    fits = fits and all(type(length) is int and length >= 0 for length in shape)
    if not fits or math.prod(shape) * dtype.dtype.itemsize != len(data):
        refuse(f"an array of shape {short(shape)} and {dtype.dtype} has {len(data)} bytes")
    budget.take(len(data))
    return dtype.dtype


def _reconstruct(budget: Budget, kind: object, shape: object, code: object) -> ArrayStandIn:
    return ArrayStandIn(budget)


def _from_buffer(
    budget: Budget, data: Any, dtype: Any, shape: Any, order: Any, axes: Any = None
) -> ArrayStandIn:
    flat = np.frombuffer(data, _checked(budget, shape, dtype, data))
    result = ArrayStandIn(budget)
    if axes is None:
        result.array = flat.reshape(shape, order=order)
    else:  # NumPy 2.3: an array whose axes were swapped
        result.array = flat.reshape(shape).transpose(axes)
    return result


def _scalar(budget: Budget, dtype: Any, data: Any) -> object:
    data = _as_bytes(budget, data)
    return np.frombuffer(data, _checked(budget, (), dtype, data))[0]


def _encode(budget: Budget, text: object, encoding: object) -> bytes:
    """Stand for ``codecs.encode``, which knows codecs that open files or unpack bombs."""
    if not (isinstance(text, str) and encoding in ("latin1", "latin-1")):
        refuse(f"codec {short(encoding)} is not latin1")
    budget.take(len(text))
    return text.encode("latin-1")


def _bytearray(budget: Budget, data: object = b"", encoding: object = "latin-1") -> bytearray:
    if not isinstance(data, bytes):  # a number would be that many bytes
        data = _encode(budget, data, encoding)
    budget.take(len(data))
    return bytearray(data)


def _of_list(kind: Callable[[Any], Any], name: str, budget: Budget, items: object = ()) -> object:
    """Make a collection of a list, or of nothing."""
    if type(items) is not list and type(items) is not tuple:
        refuse(f"{name} is made of {short(items)} instead of a list")
    budget.take(items=len(items))
    return kind(items)


class _Storage(StandIn):
    __slots__ = ("flat",)

    def __init__(self, budget: Budget, content: object) -> None:
        """Find the numbers of a tensor, which ``torch.save`` wrote; AVLnet's files have tensors."""
        content = _as_bytes(budget, content)
        if type(content) is not bytes:
            refuse(f"a tensor's numbers are {short(content)} instead of bytes")
        try:
            self.flat = read_storage(content)
        except Exception:  # of many kinds: the bytes may come from anybody
            refuse("a tensor's numbers are not what torch saves")


def _tensor(
    budget: Budget, storage: Any, offset: Any, shape: Any, strides: Any, *_: object
) -> ArrayStandIn:
    """Make an array of the part of its numbers that a tensor shows."""
    numbers = (offset, *shape, *strides)
    whole = all(type(number) is int and number >= 0 for number in numbers)
    if type(storage) is not _Storage or len(shape) != len(strides) or not whole:
        refuse("a tensor is not put together as torch does it")
    last = sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    count = math.prod(shape)
    if count and offset + last >= len(storage.flat):
        refuse(f"a tensor of shape {short(shape)} shows more numbers than it has")
    if count > len(storage.flat):
        refuse(f"a tensor of shape {short(shape)} repeats its numbers")
    budget.take(count * storage.flat.itemsize)
    bytes_apart = [stride * storage.flat.itemsize for stride in strides]
    result = ArrayStandIn(budget)
    part = storage.flat[offset:]
    result.array = np.lib.stride_tricks.as_strided(part, shape, bytes_apart).copy()
    return result


_BUILTINS: dict[str, Callable[..., object]] = {
    "bytearray": _bytearray,
    "bytes": lambda _: b"",  # before protocol 3, for the empty one; others are encoded text
    "complex": lambda _, real, imaginary: complex(float(real), float(imaginary)),
    "frozenset": partial(_of_list, frozenset, "frozenset"),
    "set": partial(_of_list, set, "set"),
}
_FUNCTIONS: dict[tuple[str, str], Callable[..., object]] = {
    ("numpy", "dtype"): lambda _, *arguments: _Dtype(*arguments),
    ("collections", "OrderedDict"): partial(_of_list, OrderedStandIn, "OrderedDict"),
    ("_codecs", "encode"): _encode,
    ("torch.storage", "_load_from_bytes"): _Storage,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor"): _tensor,
}
for _core in ("numpy.core", "numpy._core"):
    _FUNCTIONS[f"{_core}.multiarray", "_reconstruct"] = _reconstruct
    _FUNCTIONS[f"{_core}.multiarray", "scalar"] = _scalar
    _FUNCTIONS[f"{_core}.numeric", "_frombuffer"] = _from_buffer
for _module in ("builtins", "__builtin__"):
    _FUNCTIONS |= {(_module, name): make for name, make in _BUILTINS.items()}


def stand_ins(size: int) -> dict[tuple[str, str], StandIn]:
    """Give what stands for each name that a file may mention.

    Args:
        size: of the file in bytes; what the calls may make in all depends on it.
    """
    budget = Budget(size)
    functions = {name: _Function(partial(make, budget)) for name, make in _FUNCTIONS.items()}
    return {("numpy", "ndarray"): StandIn(), **functions}
