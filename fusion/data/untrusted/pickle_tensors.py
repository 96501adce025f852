"""Find the numbers of a tensor that was pickled, without following the pickles around them.

Pickling a tensor puts into the pickle what ``torch.save`` writes of its storage in the format
before PyTorch 1.6: five short pickles, a count and the numbers. Reading that by ``torch.load``
would unpack zips and follow calls that allocate what they are asked to.
"""

from __future__ import annotations

import io
import pickletools
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
    "ComplexFloatStorage": "<c8",
    "ComplexDoubleStorage": "<c16",
}
_MOST_WORDS = 99  # of a pickle; the longest, about the sizes of numbers, has 19


def read_storage(content: bytes) -> NDArray[Any]:
    """Give the numbers (N,) where they lie; they cannot be written to.

    Args:
        content: what ``torch.save`` wrote of one storage.

    Raises:
        Exception: of many kinds, if it is anything else.
    """
    file = io.BytesIO(content)
    for _ in range(3):  # a magic number, version of the format, sizes of numbers
        _words(file)
    match _words(file):
        case ["MARK", "storage", str(kind), str(), str(), int(count), "NONE", "TUPLE", *_]:
            dtype = np.dtype(_DTYPES[kind.removeprefix("torch.cuda ").removeprefix("torch ")])
        case words:
            raise ValueError(f"{words} do not describe a storage")
    _words(file)  # its key
    begin = file.tell() + 8
    stated = int.from_bytes(content[begin - 8 : begin], "little")
    if stated != count or len(content) - begin != count * dtype.itemsize:
        raise ValueError(f"{count} numbers, or {stated}, in {len(content) - begin} bytes")
    return np.frombuffer(content, dtype, count, begin)


def _words(file: io.BytesIO) -> list[Any]:
    """List what a pickle mentions and does, but for its version and what it keeps for later."""
    words: list[Any] = []
    for code, argument, _ in pickletools.genops(file):
        if code.name != "PROTO" and "PUT" not in code.name:
            words.append(code.name if argument is None else argument)
        if len(words) > _MOST_WORDS:
            raise ValueError("too long for what it should be")
    return words
