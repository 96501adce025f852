"""The pickles that ``torch.save`` writes: tensors are described, other objects left out.

``torch.load(weights_only=True)`` refuses a file that holds an object of a class that it does not
know; without ``weights_only`` the code of the file runs. Here such an object becomes a
:class:`~fusion.data.untrusted.unpickler.Foreign`, and the tensors come.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import partial
from mmap import mmap
from typing import Any, NamedTuple

import torch

from fusion.data.untrusted.kinds import LEGACY_TORCH
from fusion.data.untrusted.unpickler import Budget, Foreign, Function, StandIn, Unpickler, scan

MAX_PICKLE = 2**22  # bytes; the pickle of a published model has 100,000
MAX_AXES = 8  # of a tensor
DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}


class Data(NamedTuple):
    """The data of tensors: their type, their name in the file and the number of elements."""

    dtype: torch.dtype
    key: str
    numel: int


class Stored(NamedTuple):
    """A tensor in a file, as the file describes it; its place may be wrong."""

    data: Data
    offset: int  # this and the strides in elements
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class Place(NamedTuple):
    """Where data lie in a file, in bytes."""

    begin: int
    size: int


class StateDict(dict[Any, Any]):
    """Stands for an ``OrderedDict``; the attributes that PyTorch adds to it are not kept."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        """Ignore the attributes."""


class _Kind(StandIn):
    __slots__ = ("dtype",)

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


class _OddTensor(Foreign):
    """A tensor that is not put together as PyTorch does it."""

    __slots__ = ()
    name = "torch._utils._rebuild_tensor_v2"


class TorchPickle(Unpickler):
    """One pickle of ``torch.save``.

    Lists, dicts, tuples, sets, texts, bytes and numbers are what they are. A tensor or parameter is
    a :class:`Stored`, an object of another class a :class:`Foreign`.

    Args:
        content: has the pickle and perhaps more.
        begin: where the pickle begins.

    Attributes:
        value: what was saved.
        end: where the pickle ends.
        data: all data of tensors, by key.
        foreign: see :class:`Unpickler`.

    Raises:
        Exception: of many kinds, if the file is damaged or no pickle.
    """

    def __init__(self, content: bytes, begin: int = 0) -> None:
        self.end = scan(content, begin, objects=True)
        self.data: dict[str, Data] = {}
        pickled = content[begin : self.end]
        super().__init__(io.BytesIO(pickled), _stand_ins(len(pickled)), describe=True)
        self.value = self.load()

    def persistent_load(self, identity: Any) -> Any:
        """Describe what an id stands for: the data of tensors, or a class with its source code."""
        match identity:
            case ("storage", _Kind() as kind, str() as key, str(), int() as numel, *view):
                if view in ([], [None]):  # PyTorch 0.1 could save a part of other data
                    self.data[key] = Data(kind.dtype, key, numel)
                    return self.data[key]
            case ("module", type() as foreign, *_):
                return foreign
        return Foreign()


def read_legacy(
    content: bytes | mmap, max_pickle: int = MAX_PICKLE
) -> tuple[TorchPickle, dict[str, Place]]:
    """Read the format before PyTorch 1.6: five pickles, then for each storage a count and the data.

    The pickles are a magic number, the version, sizes of number types, the object and the keys.

    Args:
        content: of the file.
        max_pickle: bytes that the pickles may have together.

    Returns:
        The pickle of what was saved, and the place of the data under each key. A place may be
        beyond the end.

    Raises:
        Exception: of many kinds, if it is anything else.
    """
    head = content[:max_pickle]
    if not head.startswith(LEGACY_TORCH):
        raise ValueError("a pickle, but none that torch.save writes")
    version = TorchPickle(head, len(LEGACY_TORCH))
    sizes_of_numbers = TorchPickle(head, version.end)
    saved = TorchPickle(head, sizes_of_numbers.end)
    keys = TorchPickle(head, saved.end)
    places, position = {}, keys.end
    for key in keys.value:
        count = int.from_bytes(content[position : position + 8], "little")
        places[key] = Place(position + 8, count * saved.data[key].dtype.itemsize)
        position = places[key].begin + places[key].size
    return saved, places


def _stand_ins(size: int) -> Mapping[tuple[str, str], StandIn]:
    """Give all names that are known, for a pickle of ``size`` bytes."""
    return _KINDS | {
        ("collections", "OrderedDict"): Function(partial(_state_dict, Budget(size))),
        ("torch._utils", "_rebuild_parameter"): Function(lambda tensor, *_: tensor),
        ("torch._utils", "_rebuild_tensor"): Function(_tensor),
        ("torch._utils", "_rebuild_tensor_v2"): Function(_tensor),
    }


def _state_dict(budget: Budget, items: Any = ()) -> StateDict:
    budget.take(items=len(items))  # Python 2 gives them here; they could be repeated
    return StateDict(items)


def _tensor(data: object, offset: object, shape: Any, stride: Any, *_: object) -> object:
    counts = _are_counts([offset]) and _are_counts(shape) and _are_counts(stride)
    if type(data) is Data and counts and len(shape) == len(stride) <= MAX_AXES:
        return Stored(data, offset, tuple(shape), tuple(stride))  # type: ignore[arg-type]
    return _OddTensor()


def _are_counts(values: Any) -> bool:
    return type(values) in (tuple, list) and all(type(n) is int and n >= 0 for n in values)


_KINDS: dict[tuple[str, str], StandIn] = {
    (module, name): _Kind(dtype)
    for module in ("torch", "torch.cuda")
    for name, dtype in DTYPES.items()
}
