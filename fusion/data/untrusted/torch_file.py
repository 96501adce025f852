"""Read tensors from what ``torch.save`` wrote, whatever else is in the file.

``torch.load(weights_only=True)`` refuses a file with an object of an unknown class; without
``weights_only`` the code of the file runs. Here such an object becomes a
:class:`~fusion.data.untrusted.unpickler.Foreign`, and the tensors are read. Formats: PyTorch 1.6
and later (a zip with ``data.pkl``, ``data/0``, ``data/1``, …), and before (:func:`read_legacy`).
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from functools import partial
from mmap import ACCESS_COPY, mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from fusion.data.untrusted.limited import follow_elsewhere
from fusion.data.untrusted.reading import open_file
from fusion.data.untrusted.unpickler import (
    LEGACY_TORCH,
    Budget,
    Foreign,
    Function,
    Refused,
    StandIn,
    Unpickler,
    kind_of,
    scan,
)

if TYPE_CHECKING:  # reading descriptions needs no torch, whose import takes seconds
    from torch import Tensor

MAX_PICKLE = 2**22  # bytes; the pickle of a published model has 100,000
BYTES = {"bool": 1, "complex64": 8, "complex128": 16}  # of an element; others have bits in the name
MAX_AXES = 8  # of a tensor
DTYPES = {  # names of torch
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
}


class Data(NamedTuple):
    """The data of tensors: their type, their name in the file and the number of elements."""

    dtype: str
    key: str
    numel: int

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return BYTES.get(self.dtype) or int(self.dtype.lstrip("abcdefghijklmnopqrstuvwxyz")) // 8


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
    """Stands for an ``OrderedDict``."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        """Ignore the attributes that PyTorch adds."""


class _Kind(StandIn):
    __slots__ = ("dtype",)

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype


class _OddTensor(Foreign):  # is not put together as PyTorch does it
    __slots__ = ()
    name = "torch._utils._rebuild_tensor_v2"


class TorchPickle(Unpickler):
    """One pickle of ``torch.save``, in ``content`` from ``begin`` to ``self.end``.

    In ``value`` tensors are :class:`Stored` and objects of other classes :class:`Foreign`; ``data``
    has the data of all tensors by key. A damaged file raises exceptions of many kinds.
    """

    def __init__(self, content: bytes, begin: int = 0) -> None:
        self.end = scan(content, begin, objects=True)
        self.data: dict[str, Data] = {}
        budget = Budget(self.end - begin)
        known = _KNOWN | {("collections", "OrderedDict"): Function(partial(_state_dict, budget))}
        super().__init__(io.BytesIO(content[begin : self.end]), known, describe=True)
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

    The pickles are a magic number, the version, sizes of number types, the object and the keys; at
    most ``max_pickle`` bytes together. Returns what was saved, and the place of the data under each
    key, which may be beyond the end. A damaged file raises exceptions of many kinds.
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
        places[key] = Place(position + 8, count * saved.data[key].itemsize)
        position = places[key].begin + places[key].size
    return saved, places


def _state_dict(budget: Budget, items: Any = ()) -> StateDict:
    budget.take(items=len(items))  # Python 2 gives them here; they could be repeated
    return StateDict(items)


def _tensor(data: object, offset: object, shape: Any, stride: Any, *_: object) -> object:
    counts = are_counts([offset]) and are_counts(shape) and are_counts(stride)
    if type(data) is Data and counts and len(shape) == len(stride) <= MAX_AXES:
        return Stored(data, offset, tuple(shape), tuple(stride))  # type: ignore[arg-type]
    return _OddTensor()


def are_counts(values: Any) -> bool:
    """Tell whether values are a tuple or list of whole numbers from 0."""
    return type(values) in (tuple, list) and all(type(n) is int and n >= 0 for n in values)


_KNOWN: dict[tuple[str, str], StandIn] = {
    ("torch._utils", "_rebuild_parameter"): Function(lambda tensor, *_: tensor),
    ("torch._utils", "_rebuild_tensor"): Function(_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): Function(_tensor),
}
for _name, _dtype in DTYPES.items():
    _KNOWN["torch", _name] = _KNOWN["torch.cuda", _name] = _Kind(_dtype)


class TorchFileError(ValueError):
    """A file that cannot be read; one line with file, reason and way out."""


class TorchFile:
    """An open file of PyTorch, mapped into memory; its ``size`` is in bytes.

    ``content`` is what was saved: plain data, :class:`Stored` tensors and :class:`Foreign` objects;
    ``foreign`` names their unknown classes and functions, neither imported nor called.

    Its pickle is followed in a program with limits first, unless this is one (``alone``).

    Raises:
        TorchFileError: the file is missing, damaged, of another kind.
    """

    def __init__(self, path: Path, alone: bool = False) -> None:
        self.path = path
        try:
            with open_file(path) as file:
                # Copied on writing: no tensor of it can change the file.
                self._mapped = mmap(file.fileno(), 0, access=ACCESS_COPY)
        except ValueError:
            raise TorchFileError(f"{path} is empty; download it again") from None
        except OSError as error:
            raise TorchFileError(f"{path}: {error.strerror or error}; check the path") from None
        self.size = len(self._mapped)
        self._records: dict[str, zipfile.ZipInfo] = {}  # of a zip
        self._places: dict[str, Place] = {}
        try:
            if not alone:
                follow_elsewhere(path, self.size, "torch")
            saved = self._open()
        except TorchFileError:
            raise
        except Refused as error:
            raise TorchFileError(f"{path} is refused, {error}; download it again") from None
        except Exception as error:  # the bytes may come from anybody
            self._damaged(f"{type(error).__name__}: {error}")
        self.content, self.foreign = saved.value, list(saved.foreign)

    def read(self, stored: Stored) -> Tensor:
        """Give a tensor; raise a TorchFileError if its data are not whole.

        It lies in the mapped file if its place allows.
        """
        import torch

        data_, offset, shape, stride = stored
        dtype, item = getattr(torch, data_.dtype), data_.itemsize
        begin, size = self._place(data_.key)
        count = math.prod(shape)
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
        if not count or max(last + 1, count) * item > size:  # nor larger than its data
            self._damaged(f"a tensor of {count} elements has {size} bytes of data")
        whole = size // item * item
        data = torch.frombuffer(self._mapped, dtype=torch.uint8, count=whole, offset=begin)
        if begin % 16:  # of the old format
            data = data.clone()
        return data.view(dtype).as_strided(shape, stride, offset)

    def _open(self) -> TorchPickle:
        head = self._mapped[:512]
        if head.startswith(b"PK"):
            return self._open_zip()
        if head.startswith(LEGACY_TORCH):
            saved, self._places = read_legacy(self._mapped)
            return saved
        if head.startswith(b"\x80\x02"):
            raise TorchFileError(f"{self.path} is a pickle, but none that torch.save writes")
        kind = kind_of(head) or "of an unknown kind; name a .pth file or word vectors"
        raise TorchFileError(f"{self.path} is no file of PyTorch but {kind}")

    def _open_zip(self) -> TorchPickle:
        with zipfile.ZipFile(self.path) as archive:
            self._records = {info.filename: info for info in archive.infolist()}
        roots = [name.removesuffix("data.pkl") for name in self._records]
        roots = [r for r in roots if r + "data.pkl" in self._records and r.count("/") == 1]
        if len(roots) != 1:
            raise TorchFileError(
                f"{self.path} is a zip, but none that torch.save writes; unpack it first if there"
                " is a .pth file in it"
            )
        self._root = roots[0]
        if self._root + "constants.pkl" in self._records:
            raise TorchFileError(f"{self.path} is a TorchScript program; only weights are read")
        order = self._root + "byteorder"  # files before PyTorch 2.1 have none
        if order in self._records and self._read_record(order) != b"little":
            raise TorchFileError(f"{self.path} was written by a big-endian machine")
        return TorchPickle(self._read_record(self._root + "data.pkl"))

    def _place(self, key: str) -> Place:
        """Find the data of a tensor; check a record of a zip once."""
        if key not in self._places:
            if not self._records:
                self._damaged("the data of a tensor are missing")
            self._places[key] = self._check_record(f"{self._root}data/{key}")
        place = self._places[key]
        if place.begin + place.size > self.size:
            self._damaged("it is cut off")
        return place

    def _read_record(self, name: str) -> bytes:
        begin, size = self._check_record(name)
        if size > MAX_PICKLE:
            raise TorchFileError(
                f"{self.path} has {size:,} bytes beside the data of its tensors, which only"
                f" something other than weights needs; at most {MAX_PICKLE:,} are read"
            )
        return self._mapped[begin : begin + size]

    def _check_record(self, name: str) -> Place:
        if name not in self._records:
            self._damaged(f"{name} is missing in it")
        info = self._records[name]
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            self._damaged(f"{name} in it is compressed or encrypted, as torch.save never does")
        header = self._mapped[info.header_offset : info.header_offset + 30]
        lengths = [int.from_bytes(header[at : at + 2], "little") for at in (26, 28)]
        begin = info.header_offset + 30 + sum(lengths)
        with memoryview(self._mapped) as whole, whole[begin : begin + info.file_size] as data:
            if header[:4] != b"PK\3\4" or zlib.crc32(data) != info.CRC:
                self._damaged(f"the checksum of {name} in it is wrong")
        return Place(begin, info.file_size)

    def _damaged(self, why: str) -> NoReturn:
        why = " ".join(why.split())
        raise TorchFileError(f"{self.path} is damaged ({why}); download it again") from None
