"""The bytes of a feature store's files; :mod:`fusion.data.features.store` says what they mean."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusion.data.untrusted.reading import decode_json

FORMAT = 1
HALF = np.dtype("<f2")
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")  # of a field or a writer
SHARD_NAME = re.compile(NAME.pattern + r"-\d{5,}-[0-9a-f]{12}")
# The types of numbers as numpy and as safetensors call them
_DTYPES = {"<f2": "F16", "<i8": "I64", "<u8": "U64", "<u4": "U32", "|u1": "U8"}
MEND = "remove its .safetensors and .json, if they exist, and add its videos again"


class StoreError(ValueError):
    """A feature store that cannot be used; the message is one line."""


@dataclasses.dataclass(frozen=True)
class Field:
    """One kind of features in a store: rows of ``width`` numbers, ``per_second`` rows a second.

    Raises:
        ValueError: one of them is not positive.
    """

    width: int
    per_second: float

    def __post_init__(self) -> None:
        if not (self.width > 0 and 0 < self.per_second < math.inf):
            raise ValueError(f"width and rows per second of a field must be positive; got {self}")

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.width * HALF.itemsize


@dataclasses.dataclass(frozen=True)
class IndexPiece:
    """The content of an index piece; ``size`` in bytes and ``sha256`` are those of its shard.

    ``videos`` has for each video its ``facts``, and in ``fields`` for each field [rows, offset in
    the shard in bytes].
    """

    size: int
    sha256: str
    videos: dict[str, dict[str, Any]]


def encode_fields(fields: Mapping[str, Field]) -> str:
    """Write ``store.json``; ValueError: no field, or a name that cannot be part of a tensor's."""
    content = {**_describe(fields), "sha256": hashlib.sha256(identity(fields)).hexdigest()}
    return json.dumps(content, indent=2) + "\n"


def identity(fields: Mapping[str, Field]) -> bytes:
    """Write what the fields of a store are, always in the same way; raises as encode_fields."""
    return json.dumps(_describe(fields), indent=2).encode() + b"\n"


def _describe(fields: Mapping[str, Field]) -> dict[str, Any]:
    for name in fields:
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot name a field; use letters, digits, '_', '.', '-'")
    if not fields:
        raise ValueError("a store needs at least one field, such as {'2d': Field(2048, 1.0)}")
    described = {
        name: {"width": int(field.width), "per_second": float(field.per_second), "dtype": "float16"}
        for name, field in fields.items()
    }
    return {"format": FORMAT, "fields": described}


def decode_fields(content: bytes, place: str) -> dict[str, Field]:
    """Read ``store.json``, the file at ``place``."""
    try:
        described = decode_json(content)
        version, fields = described["format"], described.get("fields")
        if version == FORMAT:
            if others := {field["dtype"] for field in fields.values()} - {"float16"}:
                raise ValueError(f"it has features of {', '.join(map(str, others))}, not float16")
            found = {
                name: Field(int(field["width"]), float(field["per_second"]))
                for name, field in fields.items()
            }
            if unknown := described.keys() - {"format", "fields", "sha256"}:
                raise ValueError(f"it has {', '.join(map(str, unknown))}, which is unknown")
            said = described.get("sha256")  # older stores have none
            if said not in (None, hashlib.sha256(identity(found)).hexdigest()):
                raise ValueError("its SHA-256 is not the one that is written in it")
            return found
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StoreError(
            f"{place} is damaged ({error}); copy it from a backup, or delete it: a StoreWriter of"
            " the same fields writes it again"
        ) from None
    raise StoreError(
        f"{place} is of format {version}, and this version of fusion reads only format {FORMAT};"
        " use the version that wrote it, or a newer one"
    )


def encode_features(name: str, field: Field, features: Tensor | np.ndarray) -> np.ndarray:
    """Copy features (rows, width) to float16; ``name`` is what an error begins with."""
    shape = tuple(features.shape)
    if len(shape) != 2 or shape[1] != field.width:
        turned = len(shape) == 2 and shape[0] == field.width
        hint = "it looks transposed: time comes first" if turned else "check the extractor"
        raise ValueError(f"{name} must have the shape (rows, {field.width}); got {shape}; {hint}")
    if isinstance(features, Tensor):
        half = features.detach().to("cpu", torch.float16, copy=True).contiguous().numpy()
    elif features.dtype.kind not in "fiu":
        raise ValueError(f"{name} must be numbers; got {features.dtype}; convert it")
    else:
        with np.errstate(over="ignore"):
            half = np.array(features, HALF, order="C")
    if not np.isfinite(half).all():
        row, column = np.argwhere(~np.isfinite(half))[0]
        value = float(features[row, column])
        expected = f"at most {np.finfo(HALF).max:g} for float16" if np.isfinite(value) else "finite"
        raise ValueError(
            f"{name} must be {expected}; got {value:g} at row {row}, column {column};"
            " extract it again or leave it out"
        )
    return half


def encode_piece(piece: IndexPiece) -> bytes:
    """Write an index piece."""
    content = {"format": FORMAT, **vars(piece)}
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def piece_digest(content: bytes) -> str:
    """Return the last part of a shard's name, a hash of its index piece."""
    return hashlib.sha256(content).hexdigest()[:12]


def decode_piece(name: str, content: bytes, fields: Mapping[str, Field]) -> IndexPiece:
    """Read the index piece of the shard ``name``; StoreError: it has changed, or cannot be true."""
    if piece_digest(content) != name.rpartition("-")[2]:
        raise StoreError(f"{name}.json is damaged: its hash is not that in its name; {MEND}")
    try:
        described = decode_json(content)
        piece = IndexPiece(described["size"], described["sha256"], described["videos"])
        _check_places(piece, fields)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise StoreError(f"{name}.json cannot be true ({reason}); {MEND}") from None
    return piece


def _check_places(piece: IndexPiece, fields: Mapping[str, Field]) -> None:
    """Check that every matrix lies inside the shard and that no two overlap."""
    end = 8  # of the matrices so far; a safetensors file begins with 8 bytes of length
    for video, entry in piece.videos.items():
        video.encode()  # raises for lone surrogates, which JSON allows
        if not isinstance(entry["facts"], dict):
            raise ValueError(f"the facts of {video!r} are not a dict")
        for field, (rows, offset) in entry["fields"].items():
            if not (type(rows) is type(offset) is int and rows > 0 and offset >= end):
                raise ValueError(f"{field} of {video!r} overlaps with the matrix before it")
            end = offset + rows * fields[field].row_bytes
    if not (isinstance(piece.size, int) and end <= piece.size < 2**62):
        raise ValueError(f"it reaches to byte {end} of {piece.size}")


def encode_header(
    tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> tuple[bytes, dict[str, int]]:
    """Make the header of a safetensors file, and the offset of each tensor in the file.

    Unlike the library, this keeps the order of the tensors.
    """
    entries: dict[str, Any] = {"__metadata__": dict(metadata)}
    offsets, end = {}, 0
    for name, tensor in tensors.items():
        offsets[name], end = end, end + tensor.nbytes
        entries[name] = {
            "dtype": _DTYPES[tensor.dtype.str],
            "shape": list(tensor.shape),
            "data_offsets": [offsets[name], end],
        }
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of 8
    header = len(text).to_bytes(8, "little") + text
    return header, {name: len(header) + offset for name, offset in offsets.items()}


def decode_header(
    read: Callable[[int, int], bytes | bytearray],
) -> tuple[dict[str, str], dict[str, tuple[tuple[int, ...], int, int]]]:
    """Read a safetensors file's metadata, and each tensor's shape, begin and end in bytes.

    ``read`` maps an offset and a number of bytes to these bytes. ValueError: no safetensors file.
    """
    length = int.from_bytes(read(0, 8), "little")
    if length > 100_000_000:  # the library's own limit
        raise ValueError(f"its header has {length} bytes")
    tensors = {}
    try:
        header = decode_json(bytes(read(8, length)))
        metadata = header.pop("__metadata__", {})
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            tensors[name] = tuple(entry["shape"]), 8 + length + begin, 8 + length + end
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"its header lacks {error}") from None
    return metadata, tensors
