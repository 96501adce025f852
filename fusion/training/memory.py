"""How many clips are in memory at a time, on this rank.

The chunk size changes memory and speed, never the result. A probe chooses it, and it is halved when
memory runs out.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import psutil
import torch
from torch import Tensor, nn

from fusion.interfaces import Embed
from fusion.models.batchnorm import no_update
from fusion.out_of_memory import is_out_of_memory as is_out_of_memory
from fusion.tokens import Batch

USED = 0.8  # share of the free memory that a probe fills; the next batch may have more tokens
FEWEST = 16  # clips that a probe looks at, or one group: clips differ
CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class OutOfMemory(RuntimeError):
    """Not even the smallest chunk fits; the message says what would."""


class ChunkSize:
    """The number of clips that are in memory at a time on this rank.

    Of the rank's ``share`` of a batch, a chunk is a multiple of ``cut`` clips, see
    :func:`.batch_granularity` (None: it cannot be cut), and ``most`` at most (None: the share).
    """

    def __init__(self, share: int, cut: int | None, most: int | None = None) -> None:
        self.share, self.cut, self.size = share, cut, min(most or share, share)
        if cut is None and self.size < share:
            raise ValueError(
                f"trainer.chunk_size ({most}) would change the result, as BatchNorm takes its"
                f" statistics over all {share} clips of a process; set batchnorm_group (or"
                " batchnorm_frozen) of its encoder, or leave trainer.chunk_size out"
            )
        if cut and share % cut:
            raise ValueError(
                f"the {share} clips of a process in a batch must be a multiple of {cut}, over which"
                " BatchNorm takes its statistics: raise trainer.batch_size, start fewer processes,"
                " or lower batchnorm_group of the model or its encoder"
            )
        if cut and most and most % cut:
            raise ValueError(
                f"trainer.chunk_size ({most}) must be a multiple of batchnorm_group ({cut})"
            )

    def limit(self, clips: int) -> None:
        """Make chunks of at most ``clips`` clips, all of about the same size."""
        if self.cut is not None and clips < self.size:
            clips = max(self.cut, clips - clips % self.cut)
            even = math.ceil(self.share / math.ceil(self.share / clips))
            self.size = math.ceil(even / self.cut) * self.cut

    def halve(self) -> bool:
        """Halve the chunk size; return whether that is possible."""
        before = self.size
        self.limit(before // 2)
        return self.size < before


def probe(chunk: ChunkSize, model: nn.Module, batch: Batch, embed: Embed) -> None:
    """Choose the largest chunk that is likely to fit, by embedding two very small ones."""
    device = next(model.parameters()).device
    if chunk.cut is None or device.type not in ("cpu", "cuda"):
        return
    count = chunk.cut * math.ceil(FEWEST / chunk.cut)
    if chunk.size <= 2 * count:
        return
    with no_update(model):
        few, _ = _bytes_of(embed, batch.chunks(count)[0], device)
        more, outputs = _bytes_of(embed, batch.chunks(2 * count)[0], device)
    beside = outputs / (2 * count) * 2 * chunk.share  # all embeddings and their gradients
    if device.type == "cpu":  # where those of the parameters are still to come
        beside += sum(p.nbytes for p in model.parameters())
    room = USED * free_bytes(device) - beside
    model.zero_grad()
    for_one = max((more - few) / count, more / (8 * count))
    chunk.limit(count + int(max(0.0, room - few) / for_one))


def _bytes_of(embed: Embed, clips: Batch, device: torch.device) -> tuple[int, int]:
    """Measure the bytes of a forward and backward pass of some clips, and of their outputs."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    if device.type == "cpu":  # no allocator statistics: count saved tensors, twice for temporaries
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            outputs = embed(clips)
        return 2 * sum(kept.values()), sum(output.nbytes for output in outputs.values())
    for _ in range(2):  # the first pass allocates memory that is kept
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        outputs = embed(clips)
        size = sum(output.nbytes for output in outputs.values())
        torch.stack([output.sum() for output in outputs.values()]).sum().backward()
        del outputs
        taken = torch.cuda.max_memory_allocated(device) - before
    return taken, size


def free_bytes(device: torch.device) -> int:
    """Return how many bytes can still be allocated."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    free = psutil.virtual_memory().available // processes
    for file in CONTAINER_LIMITS:
        try:
            limit = int(Path(file).read_text())
        except (OSError, ValueError):  # no container, or no limit
            continue
        free = min(free, limit // processes - psutil.Process().memory_info().rss)
    return max(0, free)
