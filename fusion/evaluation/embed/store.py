"""Where embeddings are written: one copy for all processes of a machine.

The processes of one machine share a file that is mapped into the memory of each and has no name any
more, so nothing is sent between them and nothing remains. A single process uses memory of its own
while that is less than half of what is free.

Shapes: n rows of a tensor.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil
import torch
import torch.distributed as dist
from torch import Tensor

from fusion.distributed import rank, world_size
from fusion.evaluation.together import all_or_none, on_wire, tell

IN_MEMORY = 0.5  # share of the free memory that a single process takes
SENT = 2**26  # bytes that are sent to other machines at a time
ALIGNED = 64  # bytes: where a tensor begins in the file


class Written(NamedTuple):
    """Rows of a tensor that were computed."""

    name: str
    kind: str  # of the rows
    places: Tensor  # (n,) int64
    values: Tensor  # (n, ...)


class Spec(NamedTuple):
    """What a tensor is."""

    kind: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        """Its size."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


class Store:
    """Tensors that all processes fill together; every process makes one at the same time.

    Args:
        first: what this process computed first; None: nothing, so it learns from others.
        counts: the number of rows of each kind.

    Raises:
        OSError: there is no room for the file.
    """

    def __init__(self, first: Sequence[Written] | None, counts: Mapping[str, int]) -> None:
        own = first and {
            w.name: Spec(w.kind, (counts[w.kind], *w.values.shape[1:]), w.values.dtype)
            for w in first
        }
        self.specs: dict[str, Spec] = next(filter(None, tell(own)), {})
        # Processes that have the same folder for temporary files can share one.
        place = Path(tempfile.gettempdir()).stat()
        keys = tell((_boot(), place.st_dev, place.st_ino))
        self.leaders = [keys.index(key) for key in keys]  # of each process, the first beside it
        self.tensors = self._make()

    def write(self, parts: Sequence[Written]) -> None:
        """Write rows."""
        for part in parts:
            self.tensors[part.name][part.places] = part.values

    def exchange(self, rows: Callable[[int], Mapping[str, Tensor]]) -> None:
        """Send rows to other machines; ``rows`` says which ones a process wrote, by kind."""
        if len(set(self.leaders)) == 1:
            return
        for process in range(world_size()):
            written = rows(process)
            for name, spec in self.specs.items():
                size = max(1, SENT // max(1, spec.bytes // max(1, spec.shape[0])))
                for places in written[spec.kind].split(size):
                    self._send(self.tensors[name], places, process)

    def _send(self, tensor: Tensor, places: Tensor, process: int) -> None:
        rows = tensor[places].contiguous()
        sent = on_wire(rows.view(torch.uint8) if rows.dtype == torch.bool else rows)
        dist.broadcast(sent, process)
        leader = self.leaders[rank()]
        if leader == rank() and leader != self.leaders[process]:
            tensor[places] = sent.cpu().view(rows.dtype)

    def _make(self) -> dict[str, Tensor]:
        size = sum(_room(spec) for spec in self.specs.values())
        if world_size() == 1 and size < IN_MEMORY * psutil.virtual_memory().available:
            return {n: torch.empty(spec.shape, dtype=spec.dtype) for n, spec in self.specs.items()}
        leader = self.leaders[rank()]
        path: str | None = None
        with all_or_none():
            if leader == rank():
                path = _reserve(size)
        path = tell(path)[leader]
        try:
            with all_or_none():
                storage = torch.from_file(path, shared=True, size=max(1, size), dtype=torch.uint8)
        finally:
            if leader == rank():
                os.unlink(path)
        tensors, start = {}, 0
        for name, spec in self.specs.items():
            own = storage[start : start + spec.bytes]
            tensors[name] = own.view(spec.dtype).view(spec.shape)
            start += _room(spec)
        return tensors


def _room(spec: Spec) -> int:
    """Return how many bytes of the file a tensor takes."""
    return -(-spec.bytes // ALIGNED) * ALIGNED


def _reserve(size: int) -> str:
    """Make a file of so many bytes that are really there; else a full disk would be a SIGBUS."""
    handle, path = tempfile.mkstemp(prefix="fusion-embeddings-")
    try:
        os.ftruncate(handle, max(1, size))
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(handle, 0, max(1, size))
    except OSError as error:
        os.unlink(path)
        raise OSError(
            f"the embeddings take {size / 2**30:.1f} GiB, and {tempfile.gettempdir()} has no room"
            f" for them ({error}); make room there, or set TMPDIR to a folder on another disk"
        ) from error
    finally:
        os.close(handle)
    return path


def _boot() -> str:
    """Name the machine so that others have other names, also where they are copies of it."""
    file = Path("/proc/sys/kernel/random/boot_id")
    return file.read_text() if file.exists() else os.uname().nodename
