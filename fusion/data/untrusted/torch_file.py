"""Read tensors from what ``torch.save`` wrote, whatever else is in the file.

Both formats: of PyTorch 1.6 and later (a zip with ``data.pkl`` and ``data/0``, ``data/1``, …) and
the one before, see :func:`.torch_pickle.read_legacy`. The file is mapped into memory, so a tensor
costs nothing before it is used.
"""

from __future__ import annotations

import math
import mmap
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from fusion.data.untrusted.kinds import LEGACY_TORCH, kind_of
from fusion.data.untrusted.torch_pickle import (
    MAX_PICKLE,
    Place,
    Stored,
    TorchPickle,
    read_legacy,
)
from fusion.data.untrusted.unpickler import Refused


class TorchFileError(ValueError):
    """A file that cannot be read; one line with file, reason and way out."""


class TorchFile:
    """An open file of PyTorch.

    Args:
        path: written by ``torch.save``.

    Attributes:
        content: what was saved, see :class:`.torch_pickle.TorchPickle`.
        foreign: names of the classes and functions that the file mentions and that are not known;
            they were neither imported nor called.
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
            raise TorchFileError(f"{path} is empty; download it again") from None
        except OSError as error:
            raise TorchFileError(f"{path}: {error.strerror or error}; check the path") from None
        self.size = len(self._mapped)
        self._root = ""
        self._checked: dict[str, Place] = {}
        self._records: Mapping[str, zipfile.ZipInfo] = {}
        self._places: Mapping[str, Place] = {}
        try:
            saved = self._open()
        except TorchFileError:
            raise
        except Refused as error:
            raise TorchFileError(f"{path} is refused, {error}; download it again") from None
        except Exception as error:  # the bytes may come from anybody
            self._damaged(f"{type(error).__name__}: {error}")
        self.content, self.foreign = saved.value, list(saved.foreign)

    def read(self, stored: Stored) -> Tensor:
        """Give a tensor, which lies in the mapped file if its place allows.

        Raises:
            TorchFileError: its data are not whole, or it has none.
        """
        (dtype, key, _), offset, shape, stride = stored
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

    def _open(self) -> TorchPickle:
        head = self._mapped[:512]
        if head.startswith(b"PK"):
            return self._open_zip()
        if head.startswith(LEGACY_TORCH):
            saved, self._places = read_legacy(self._mapped)
            return saved
        if head.startswith(b"\x80\x02"):
            raise TorchFileError(f"{self.path} is a pickle, but none that torch.save writes")
        kind = kind_of(head) or "of an unknown kind"
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
