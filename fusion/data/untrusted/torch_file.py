"""Read tensors from what ``torch.save`` wrote, whatever else is in the file.

``torch.load(weights_only=True)`` refuses a file that holds an object of a class it does not know;
without it, the file's code runs. Here such objects are left out and the tensors come: from the
format of PyTorch 1.6 and later (a zip with ``data.pkl`` and ``data/0``, ``data/1``, …) and the one
before (pickles one after the other, then the data). Files are mapped into memory, so a tensor costs
nothing before it is used.
"""

from __future__ import annotations

import io
import math
import mmap
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from fusion.data.untrusted.torch_pickle import Name, Pickle

LARGEST_PICKLE = 2**22  # bytes; that of a published model has 100,000, and time grows with it
LARGEST_RANK = 8  # axes of a tensor
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
AGAIN = "download it again"

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
}
BEGINNINGS = {  # of files that are often taken for one of PyTorch
    b"<": f"a web page, which a site shows instead of a download; {AGAIN}, in a browser",
    b"\x1f\x8b": "compressed; unpack it first",
    b"Rar!": "compressed; unpack it first",
    b"7z\xbc\xaf": "compressed; unpack it first",
    b"\x93NUMPY": "a NumPy array",
    b"\x89HDF": "an HDF5 file",
}


class TorchFileError(ValueError):
    """A file that cannot be read; one line with file, reason and way out."""


class Data(NamedTuple):
    """The data of tensors: their type and what the file calls them."""

    dtype: torch.dtype
    key: str


class Stored(NamedTuple):
    """A tensor in a file, as the file describes it; what is said of its place may be wrong."""

    data: Data
    offset: int  # these in elements
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class Place(NamedTuple):
    """Where data lie in a file, in bytes."""

    begin: int
    size: int


class TorchFile:
    """An open file of PyTorch.

    Args:
        path: written by ``torch.save``.

    Attributes:
        content: what was saved, as :class:`.torch_pickle.Pickle` gives it, with a
            :class:`Stored` for each tensor or parameter.
        foreign: names of the classes and functions that the file mentions and that were neither
            looked up nor called.
        size: of the file in bytes.

    Raises:
        TorchFileError: the file is missing, damaged, of another kind.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with open(path, "rb") as file:
                # Copied on writing: no tensor of it can change the file.
                self._mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except ValueError:
            raise TorchFileError(f"{path} is empty; {AGAIN}") from None
        except OSError as error:
            raise TorchFileError(f"{path}: {error.strerror or error}; check the path") from None
        self.size = len(self._mapped)
        self._root = ""
        self._checked: dict[str, Place] = {}
        self._records: Mapping[str, zipfile.ZipInfo] = {}
        self._places: Mapping[str, Place] = {}
        try:
            names = self._open()
        except TorchFileError:
            raise
        except Exception as error:  # the bytes may come from anybody
            self._damaged(f"{type(error).__name__}: {error}")
        self.foreign = [name for name in names if name not in KNOWN]

    def read(self, stored: Stored) -> Tensor:
        """Give a tensor, which lies in the mapped file if its place allows.

        Raises:
            TorchFileError: its data are not whole, or it has none.
        """
        (dtype, key), offset, shape, stride = stored
        begin, size = self._place(key)
        count = math.prod(shape)
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
        if not count or max(last + 1, count) * dtype.itemsize > size:  # nor larger than its data
            self._damaged(f"a tensor of {count} elements has {size} bytes of data")
        whole = size // dtype.itemsize * dtype.itemsize
        data = torch.frombuffer(self._mapped, dtype=torch.uint8, count=whole, offset=begin)
        if begin % 16:  # of the old format
            data = data.clone()
        return data.view(dtype).as_strided(shape, stride, offset)

    def _open(self) -> dict[str, None]:
        head = self._mapped[:512]
        if head.startswith(b"PK"):
            return self._open_zip()
        if head.startswith(b"\x80\x02"):
            return self._open_legacy()
        kinds = [kind for beginning, kind in BEGINNINGS.items() if head.startswith(beginning)]
        if head[257:262] == b"ustar":
            kinds = ["an archive; unpack it with tar -xf and name the .pth file in it"]
        if head[8:9] == b"{":
            kinds = ["a safetensors file"]
        if re.match(rb"\d+ \d+\n", head):
            kinds = ["one of word vectors; convert it by --out FILE.safetensors"]
        raise TorchFileError(
            f"{self.path} is no file of PyTorch but {(kinds or ['of an unknown kind'])[0]}"
        )

    def _open_zip(self) -> dict[str, None]:
        with zipfile.ZipFile(self.path) as archive:
            self._records = {info.filename: info for info in archive.infolist()}
        roots = [name.removesuffix("data.pkl") for name in self._records]
        roots = [r for r in roots if r + "data.pkl" in self._records and r.count("/") == 1]
        if len(roots) != 1:
            raise TorchFileError(
                f"{self.path} is a zip, but none that torch.save writes; unpack it first if there"
                " is a .pth file in it"
            )
        if roots[0] + "constants.pkl" in self._records:
            raise TorchFileError(f"{self.path} is a TorchScript program; only weights are read")
        order = roots[0] + "byteorder"  # files before PyTorch 2.1 have none
        if order in self._records and self._record(order) != b"little":
            raise TorchFileError(f"{self.path} was written by a big-endian machine")
        record = self._record(roots[0] + "data.pkl")
        saved = Pickle(io.BytesIO(record), _Maker(len(record)), _load)
        self.content, self._root = saved.content, roots[0]
        return saved.names

    def _open_legacy(self) -> dict[str, None]:
        file = io.BytesIO(self._mapped[:LARGEST_PICKLE])
        if Pickle(file).content != LEGACY_MAGIC:
            raise TorchFileError(f"{self.path} is a pickle, but none that torch.save writes")
        for _ in range(2):  # version of the format, sizes of numbers
            Pickle(file)
        dtypes: dict[str, torch.dtype] = {}

        def load(identity: Any) -> Any:
            data = _load(identity)
            if isinstance(data, Data):
                dtypes[data.key] = data.dtype
            return data

        saved = Pickle(file, _Maker(min(self.size, LARGEST_PICKLE)), load)
        keys = Pickle(file).content
        places, position = {}, file.tell()
        for key in keys:
            count = int.from_bytes(self._mapped[position : position + 8], "little")
            places[key] = Place(position + 8, count * dtypes[key].itemsize)
            position = places[key].begin + places[key].size
        self.content, self._places = saved.content, places
        return saved.names

    def _place(self, key: str) -> Place:
        """Find the data of a tensor and check once that they are whole."""
        if key in self._checked:
            return self._checked[key]
        if self._records:
            place = self._check_record(f"{self._root}data/{key}")
        elif key in self._places:
            place = self._places[key]
        else:
            self._damaged("the data of a tensor are missing")
        if place.begin + place.size > self.size:
            self._damaged("it is cut off")
        self._checked[key] = place
        return place

    def _record(self, name: str) -> bytes:
        begin, size = self._check_record(name)
        if size > LARGEST_PICKLE:
            raise TorchFileError(
                f"{self.path} has {size:,} bytes beside the data of its tensors, which only"
                f" something other than weights needs; at most {LARGEST_PICKLE:,} are read"
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
        raise TorchFileError(f"{self.path} is damaged ({' '.join(why.split())}); {AGAIN}") from None


def _load(identity: Any) -> Any:
    """Describe the data that a persistent id stands for."""
    if not isinstance(identity, tuple):
        return NotImplemented
    tag, kind, key, *_ = *identity, None, None, None
    if tag != "storage" or str(kind) not in STORAGES or type(key) is not str:
        return NotImplemented
    return Data(STORAGES[str(kind)], key)


class _Maker:
    """Makes what holds tensors, and describes these.

    Args:
        size: of the pickle in bytes. It cannot list more items than that, but it can name a list a
            second time in two bytes.
    """

    def __init__(self, size: int) -> None:
        self._items = size

    def __call__(self, name: Name, arguments: tuple[Any, ...]) -> Any:
        """Make what a call stands for; ``NotImplemented`` where that is unknown."""
        if str(name) == "collections.OrderedDict":  # Python 2 gives its items at once
            items = (arguments or [()])[0]
            self._items -= len(items)
            if self._items < 0:
                raise ValueError("it takes the same items again and again, to fill the memory")
            return {key: value for key, value in items if isinstance(key, str)}
        if str(name) == "torch._utils._rebuild_parameter" and arguments:
            return arguments[0]
        if str(name) in TENSORS and len(arguments) >= 4 and isinstance(arguments[0], Data):
            data, offset, shape, stride, *_ = arguments
            counts = _are_counts([offset]) and _are_counts(shape) and _are_counts(stride)
            if counts and len(shape) == len(stride) <= LARGEST_RANK:
                return Stored(data, offset, tuple(shape), tuple(stride))
        return NotImplemented


def _are_counts(values: Any) -> bool:
    return type(values) in (tuple, list) and all(type(n) is int and n >= 0 for n in values)


STORAGES = {
    f"{module}.{name}": dtype
    for module in ("torch", "torch.cuda")
    for name, dtype in DTYPES.items()
}
TENSORS = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
KNOWN = {*STORAGES, *TENSORS, "collections.OrderedDict", "torch._utils._rebuild_parameter"}
