"""How many clips are in memory at a time, on this rank.

The chunk size changes memory and speed, never the result. A probe finds what fits, in features, and
it is halved when memory runs out.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

import psutil
import torch
from torch import Tensor, nn

from fusion.interfaces import Embed
from fusion.models.batchnorm import no_update
from fusion.out_of_memory import is_out_of_memory as is_out_of_memory
from fusion.tokens import Batch, Tokens

USED = 0.8  # share of the free memory that a probe fills; the next batch may have more tokens
GROW_AFTER = 50  # steps without a lack of memory after which a chunk is made larger
FEWEST = 16  # clips that a probe looks at, or one group: clips differ
CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class OutOfMemory(RuntimeError):
    """Not even the smallest chunk fits; the message says what would."""


class ChunkSize:
    """The number of clips that are in memory at a time on this rank.

    Of the rank's ``share`` of a batch, a chunk is a multiple of ``cut`` clips, see
    :func:`.batch_granularity` (None: it cannot be cut), and ``most`` at most (None: the share).
    What fits is known in features (:func:`features_of`), as clips differ: after a batch of long
    clips the chunks grow again by themselves. In case memory was short for another reason, the
    limit is doubled after ``GROW_AFTER`` steps, and after twice as many whenever that was too much.

    Attributes:
        size: clips in a chunk of the last batch that was split.
        fits: features that fit into memory.
    """

    def __init__(self, share: int, cut: int | None, most: int | None = None) -> None:
        self.share, self.cut, self.size = share, cut, min(most or share, share)
        self.most, self.fits, self._highest = self.size, math.inf, math.inf
        self._costs: list[float] = [1.0] * share  # features of the clips of the last batch
        self._limit: int | None = None  # clips, until the features of a batch are known
        self._steps, self._wait, self._has_grown = 0, GROW_AFTER, False
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

    def split(self, batch: Batch) -> list[Batch]:
        """Cut the rank's share of a batch into chunks that are likely to fit."""
        self._costs = features_of(batch)
        if self._limit is not None:
            self.fits, self._limit = min(self.fits, self._largest(self._limit)), None
        self._choose()
        return batch.chunks(self.size)

    def limit(self, clips: int) -> None:
        """Make chunks of at most ``clips`` clips, all of about the same size, for now."""
        if self.cut is not None and clips < self.size:
            self.size = self._limit = self._even(clips)

    def fit(self, features: float) -> None:
        """Make chunks of at most so many features, which a probe found to fit."""
        self.fits = self._highest = features

    def halve(self) -> bool:
        """Halve what fits, as memory has run out; return whether smaller chunks are possible."""
        before = self.size
        if self.cut is None or before <= self.cut:
            return False
        self._wait *= 2 if self._has_grown else 1
        self._steps, self._has_grown = 0, False
        # The second bound is for halves that are cut elsewhere and happen to hold as much.
        self.fits = min(self._largest(self._even(before // 2)), 0.999 * self._largest(before))
        self._choose()
        return self.size < before

    def count_step(self) -> bool:
        """Count a step in which memory was enough; return whether chunks grow from now on."""
        self._steps += 1
        if self._steps < self._wait or self.fits >= min(self._highest, sum(self._costs)):
            return False
        self._steps, self._has_grown = 0, True
        self.fits = min(2 * self.fits, self._highest)
        self._choose()
        return True

    def _choose(self) -> None:
        """Choose the largest chunks of about the same size whose features fit."""
        size = self.most
        while self.cut and size > self.cut and self._largest(size) > self.fits:
            size = self._even(size - self.cut)
        self.size = size

    def _even(self, clips: int) -> int:
        if self.cut is None:
            return self.share
        clips = max(self.cut, clips - clips % self.cut)
        even = math.ceil(self.share / math.ceil(self.share / clips))
        return math.ceil(even / self.cut) * self.cut

    def _largest(self, size: int) -> float:
        """Return the features of the largest chunk of so many clips."""
        parts = (self._costs[i : i + size] for i in range(0, len(self._costs), size))
        return max(map(sum, parts), default=0.0)


def features_of(batch: Batch) -> list[float]:
    """Count the numbers in the features of each clip, and 1 for the clip; only 1 without tokens."""
    counts = torch.ones(len(batch.ids), dtype=torch.float64)
    named = batch.inputs.values() if isinstance(batch.inputs, Mapping) else ()
    for tokens in named:
        if isinstance(tokens, Tokens):
            counts += tokens.host_lengths * math.prod(tokens.values.shape[1:])
    return counts.tolist()


def probe(chunk: ChunkSize, model: nn.Module, batch: Batch, embed: Embed) -> None:
    """Choose the largest chunk that is likely to fit, by embedding two very small ones."""
    device = next(model.parameters()).device
    if chunk.cut is None or device.type not in ("cpu", "cuda"):
        return
    count = chunk.cut * math.ceil(FEWEST / chunk.cut)
    if chunk.size <= 2 * count:
        return
    small, large = batch.chunks(count)[0], batch.chunks(2 * count)[0]
    with no_update(model):
        few, _ = _bytes_of(embed, small, device)
        more, outputs = _bytes_of(embed, large, device)
    beside = outputs / (2 * count) * 2 * chunk.share  # all embeddings and their gradients
    if device.type == "cpu":  # where those of the parameters are still to come
        beside += sum(p.nbytes for p in model.parameters())
    room = USED * free_bytes(device) - beside
    model.zero_grad()
    in_small, in_large = sum(features_of(small)), sum(features_of(large))
    # Bytes for a feature; clips of the second half may have hardly any.
    for_one = max((more - few) / max(in_large - in_small, 0.1 * in_large), more / (4 * in_large))
    chunk.fit(in_small + max(0.0, room - few) / for_one)
    chunk.split(batch)


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
