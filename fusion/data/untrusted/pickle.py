"""Read the pickles in which features and captions are published, without running their code.

The rules are those of :mod:`fusion.data.untrusted.unpickler`. Here an unknown name is refused. In
the result, arrays replace their stand-ins, and anything else that is not data is refused.
"""

from __future__ import annotations

import gc
import mmap
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fusion.data.untrusted.arrays import ArrayStandIn, OrderedStandIn, stand_ins
from fusion.data.untrusted.limited import follow_elsewhere, may_take_long
from fusion.data.untrusted.reading import open_file
from fusion.data.untrusted.unpickler import Refused, Unpickler, kind_of, refuse, scan

_PLAIN = {str, bytes, bytearray, int, float, complex, bool, type(None), set, frozenset}
_TEXTS = (".csv", ".json", ".txt", ".vtt", ".srt", ".yaml")


class PickleFileError(ValueError):
    """A pickle that is refused, damaged or none; one line with file, reason and way out."""


def load_pickle(path: str | Path) -> Any:
    """Read a pickle of lists, dicts, tuples, sets, strings, numbers, bytes and numeric arrays.

    Any protocol, also of Python 2 (its strings as latin-1) and NumPy 1. Arrays and NumPy numbers
    are boolean, integer, float, complex or fixed-width text. Tensors become arrays. The memory
    needed is proportional to the size of the file. A pickle that may never end, or crash Python, is
    followed in a program of its own first, which has limits.

    Raises:
        PickleFileError: no such file, damaged, or not only plain data.
    """
    try:
        with open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            if not size:
                raise PickleFileError(f"{path}: the file is empty; copy or download it again")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                kind = kind_of(content[:512])
                if (ending := Path(path).suffix).lower() in _TEXTS:
                    kind = f"text, as its ending {ending} says"
                if kind:  # often taken for a pickle
                    raise PickleFileError(f"{path}: no pickle but {kind}")
                scan(content)
                if may_take_long(content):
                    follow_elsewhere(path, size)
            return _unpickle(file, size)
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


def follow(path: str | Path) -> None:
    """Do what :func:`load_pickle` does, without the result and without a program of its own."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            scan(content)
        _unpickle(file, size)


def _is_text(path: str | Path) -> bool:
    with open_file(path) as file:
        head = file.read(200).decode("utf-8", errors="replace")
    return all(c.isprintable() or c.isspace() for c in head[:-4])  # a letter may be cut in two


def _unpickle(file: BinaryIO, size: int) -> Any:
    unpickler = Unpickler(file, stand_ins(size))
    collects_garbage = gc.isenabled()
    gc.disable()  # nothing that is made here is garbage; looking for it can double the time
    try:
        value = unpickler.load()
        return _settle(value) if unpickler.has_names else value
    finally:
        if collects_garbage:
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
