"""Stand-ins for arrays, tensors and collections in the pickles of published data.

NumPy's own ``dtype`` and ``ndarray`` would trust the sizes that a file states.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial
from reprlib import repr as short
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion.data.untrusted.torch_file import Data, Place, are_counts, read_legacy
from fusion.data.untrusted.unpickler import Budget, Function, StandIn, refuse

_STORAGE_HEADER = 400  # bytes before the numbers of a pickled tensor; about 240 are used
_NUMBERS_AND_TEXT = re.compile(r"b1|[iu][1248]|f[248]|c8|c16|[SU][1-9][0-9]{0,8}")


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
    """Stands for an array until the whole file is read."""

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
    fits = type(shape) is tuple and len(shape) <= 64 and are_counts(shape)
    if not fits or math.prod(shape) * dtype.dtype.itemsize != len(data):
        refuse(f"an array of shape {short(shape)} and {dtype.dtype} has {len(data)} bytes")
    budget.take(len(data))
    return dtype.dtype


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
    return _as_bytes(budget, text)


def _bytearray(budget: Budget, data: object = b"", encoding: object = "latin-1") -> bytearray:
    if not isinstance(data, bytes):  # a number would be that many bytes
        data = _encode(budget, data, encoding)
    budget.take(len(data))
    return bytearray(data)


def _of_list(kind: Callable[[Any], Any], name: str, budget: Budget, items: object = ()) -> object:
    if type(items) is not list and type(items) is not tuple:
        refuse(f"{name} is made of {short(items)} instead of a list")
    budget.take(items=len(items))
    return kind(items)


class _Storage(StandIn):
    """The numbers of a tensor, as AVLnet's files have them: a small file of ``torch.save``."""

    __slots__ = ("flat",)

    def __init__(self, budget: Budget, content: object) -> None:
        content = _as_bytes(budget, content)
        if type(content) is not bytes:
            refuse(f"a tensor's numbers are {short(content)} instead of bytes")
        try:
            saved, places = read_legacy(content, _STORAGE_HEADER)
            data: Data = saved.value
            dtype = np.dtype(data.dtype)
            begin = len(content) - data.numel * dtype.itemsize
            self.flat = np.frombuffer(content, dtype, data.numel, begin)  # (N,), read-only
            whole = list(places.values()) == [Place(begin, len(content) - begin)]
        except Exception:  # of many kinds: the bytes may come from anybody
            whole = False
        if not whole:
            refuse("a tensor's numbers are not what torch saves")


def _tensor(
    budget: Budget, storage: Any, offset: Any, shape: Any, strides: Any, *_: object
) -> ArrayStandIn:
    """Make an array of the part of its numbers that a tensor shows."""
    counts = are_counts((offset, *shape, *strides))
    if type(storage) is not _Storage or len(shape) != len(strides) or not counts:
        refuse("a tensor is not put together as torch does it")
    flat, count = storage.flat, math.prod(shape)
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if count and last >= len(flat):
        refuse(f"a tensor of shape {short(shape)} shows more numbers than it has")
    if count > len(flat):
        refuse(f"a tensor of shape {short(shape)} repeats its numbers")
    size = flat.itemsize
    budget.take(count * size)
    result, steps = ArrayStandIn(budget), [stride * size for stride in strides]
    result.array = np.ndarray(shape, flat.dtype, flat, offset * size, steps).copy()
    return result


_FUNCTIONS: dict[tuple[str, str], Callable[..., object]] = {
    ("numpy", "dtype"): lambda _, *arguments: _Dtype(*arguments),
    ("collections", "OrderedDict"): partial(_of_list, OrderedStandIn, "OrderedDict"),
    ("_codecs", "encode"): _encode,
    ("torch.storage", "_load_from_bytes"): _Storage,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor"): _tensor,
}
for _core in ("numpy.core", "numpy._core"):
    _FUNCTIONS[f"{_core}.multiarray", "_reconstruct"] = lambda budget, *_: ArrayStandIn(budget)
    _FUNCTIONS[f"{_core}.multiarray", "scalar"] = _scalar
    _FUNCTIONS[f"{_core}.numeric", "_frombuffer"] = _from_buffer
for _module in ("builtins", "__builtin__"):
    _FUNCTIONS |= {
        (_module, "bytearray"): _bytearray,
        (_module, "bytes"): lambda _: b"",  # before protocol 3, if empty; others are encoded text
        (_module, "complex"): lambda _, real, imag: complex(float(real), float(imag)),
        (_module, "frozenset"): partial(_of_list, frozenset, "frozenset"),
        (_module, "set"): partial(_of_list, set, "set"),
    }


def stand_ins(size: int) -> dict[tuple[str, str], StandIn]:
    """Give what stands for each name that a file of ``size`` bytes may mention."""
    budget = Budget(size)
    functions = {name: Function(partial(make, budget)) for name, make in _FUNCTIONS.items()}
    return {("numpy", "ndarray"): StandIn(), **functions}
