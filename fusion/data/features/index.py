"""The index of a feature store: which video lies where, in one file that processes share.

It is made from the index pieces of the shards and can be made again.
:mod:`fusion.data.features.store` describes it.

Shapes: N videos, S fields.
"""

from __future__ import annotations

import json
import mmap
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from fusion.data.features.format import (
    Field,
    StoreError,
    decode_header,
    decode_piece,
    encode_header,
)

_STRETCH = 512  # names


class Index:
    """Which video lies where.

    Args:
        data: what :func:`build_index` returned, in memory or mapped.
        path: where it is mapped from, if it is.

    Attributes:
        shards: their names.
        sizes: bytes of each shard; 0 if its index piece is damaged.
        damaged: shards whose index piece is damaged, and how; their videos are not in the index.

    Raises:
        StoreError: it is damaged.
    """

    def __init__(self, data: bytes | mmap.mmap, path: Path | None = None) -> None:
        self.path, self._data = path, data
        try:
            metadata, tensors = decode_header(lambda start, size: data[start : start + size])
            self.damaged: dict[str, str] = json.loads(metadata["damaged"])
            if max(end for _, _, end in tensors.values()) != len(data):
                raise ValueError("it is cut off")
            _, begin, end = tensors["shards"]
            self.shards = data[begin:end].decode().split()
            self._stride = tensors["places"][0][1]
            self._names, self._facts = tensors["names"][1], tensors["facts"][1]
        except (ValueError, KeyError, IndexError) as error:
            raise StoreError(f"{path} is a damaged index ({error}); delete it") from None
        view = memoryview(data)

        def numbers(name: str) -> memoryview:
            return view[slice(*tensors[name][1:])].cast("q")

        self._places, self.sizes = numbers("places"), numbers("sizes")
        self._name_ends, self._facts_ends = numbers("name_ends"), numbers("facts_ends")
        # In a million names a binary search is a cache miss at every step: a few of them in a
        # list leave it a stretch that fits into the processor.
        self._landmarks = [self._name(number) for number in range(0, len(self), _STRETCH)]

    def __len__(self) -> int:
        return len(self._name_ends) - 1

    def find(self, video: str) -> int:
        """Return the number of a video; -1: it is not there."""
        try:
            wanted = video.encode()
        except UnicodeEncodeError:
            return -1
        data, ends, names = self._data, self._name_ends, self._names
        low = max(bisect_right(self._landmarks, wanted) - 1, 0) * _STRETCH
        high = min(low + _STRETCH, len(self))
        while low < high:  # names lie one after the other, each ends where the next one begins
            middle = (low + high) // 2
            if data[names + ends[middle] : names + ends[middle + 1]] < wanted:
                low = middle + 1
            else:
                high = middle
        return low if low < len(self) and self._name(low) == wanted else -1

    def name(self, number: int) -> str:
        """Return the name of a video."""
        return self._name(number).decode()

    def facts(self, number: int) -> dict[str, Any]:
        """Return what was noted about a video."""
        begin, end = self._facts_ends[number], self._facts_ends[number + 1]
        return json.loads(self._data[self._facts + begin : self._facts + end] or b"{}")

    def shard(self, number: int) -> int:
        """Return the number of the shard that holds a video."""
        return self._places[number * self._stride]

    def place(self, number: int, field: int) -> tuple[int, int]:
        """Return the rows that a video has of a field, and where in the shard they begin."""
        at = number * self._stride + 1 + 2 * field
        return self._places[at], self._places[at + 1]

    def _name(self, number: int) -> bytes:
        begin, end = self._name_ends[number], self._name_ends[number + 1]
        return self._data[self._names + begin : self._names + end]


class Videos(Sequence[str]):
    """Names of the videos of an index, sorted, each read when it is asked for."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def __len__(self) -> int:
        return len(self._index)

    @overload
    def __getitem__(self, at: int) -> str: ...

    @overload
    def __getitem__(self, at: slice) -> list[str]: ...

    def __getitem__(self, at: int | slice) -> str | list[str]:
        if isinstance(at, slice):
            return [self._index.name(number) for number in range(len(self))[at]]
        return self._index.name(range(len(self))[at])

    def __iter__(self) -> Iterator[str]:
        return map(self._index.name, range(len(self)))

    def __contains__(self, video: object) -> bool:
        return isinstance(video, str) and self._index.find(video) >= 0


def build_index(pieces: Iterable[tuple[str, bytes]], fields: Mapping[str, Field]) -> bytes:
    """Make an index.

    Args:
        pieces: names of the shards and their index pieces, sorted: the first shard that has a
            video counts.
        fields: those of the store.

    Returns:
        A safetensors file of ``places`` (N, 1 + 2 S), for each video its shard and for each field
        rows and offset; ``sizes`` of the shards; ``name_ends`` and ``facts_ends`` (N + 1,), where
        in ``names`` and ``facts`` those of a video begin and end; ``shards``, their names. All
        numbers are int64, all texts UTF-8.
    """
    names: list[bytes] = []
    facts: list[bytes] = []
    places, sizes, shards, damaged = array("q"), array("q"), [], {}
    for name, content in pieces:
        shards.append(name)
        try:
            piece = decode_piece(name, content, fields)
        except StoreError as error:
            damaged[name] = str(error)
            sizes.append(0)
            continue
        for video, entry in piece.videos.items():
            names.append(video.encode())
            facts.append(_compact(entry["facts"]))
            places.append(len(sizes))
            for field in fields:
                places.extend(entry["fields"].get(field, (0, 0)))
        sizes.append(piece.size)
    order = _first_of_each(names)
    rows = np.array(places, np.int64).reshape(-1, 1 + 2 * len(fields))[order]
    names, facts = [names[at] for at in order], [facts[at] for at in order]
    tensors = {
        "places": rows,
        "sizes": np.array(sizes, np.int64),
        "name_ends": _ends(names),
        "facts_ends": _ends(facts),
        "names": _bytes(names),
        "facts": _bytes(facts),
        "shards": _bytes(["\n".join(shards).encode()]),
    }
    header, _ = encode_header(tensors, {"damaged": json.dumps(damaged)})
    return b"".join([header, *(tensor.tobytes() for tensor in tensors.values())])


def _first_of_each(names: list[bytes]) -> list[int]:
    """Sort by name; of those that are equal keep the first."""
    order = sorted(range(len(names)), key=names.__getitem__)
    repeated = {order[i] for i in range(1, len(order)) if names[order[i]] == names[order[i - 1]]}
    return [at for at in order if at not in repeated]  # sorted() keeps the order of equals


def _ends(texts: list[bytes]) -> np.ndarray:
    return np.cumsum([0, *map(len, texts)], dtype=np.int64)


def _bytes(texts: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(texts), np.uint8)


def _compact(facts: Mapping[str, Any]) -> bytes:
    return json.dumps(facts).encode() if facts else b""
