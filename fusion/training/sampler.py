"""Which clips make up which batch: a function of the seed and the epoch alone."""

from __future__ import annotations

import math
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from fusion.files import num_cores
from fusion.interfaces import TrainingSet
from fusion.tokens import Batch
from fusion.words import number_of


class EpochBatchSampler(Sampler[list[int]]):
    """The share of one rank in every batch of one epoch.

    The order of the clips is a permutation drawn from (seed, epoch). Each batch is the next
    ``batch_size`` clips, cut into ``world_size`` equal parts; the incomplete batch at the end is
    dropped. So a run on several processes sees the same batches as a run on one. ``group``
    neighbouring clips, such as those of one video, are permuted as one and follow one another; the
    last ones may be fewer. Groups of different sizes are given as the list of their sizes.

    Set ``epoch`` before iterating; ``first`` is the number of batches to skip, when a run resumes
    within an epoch.
    """

    def __init__(
        self,
        num_clips: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        group: int | Sequence[int] = 1,
    ) -> None:
        if batch_size < 1 or batch_size > num_clips:
            raise ValueError(
                f"trainer.batch_size ({batch_size}) must be between 1 and the number of training"
                f" clips ({num_clips})"
            )
        if batch_size % world_size:
            raise ValueError(
                f"trainer.batch_size ({batch_size}) must be a multiple of the number of processes"
                f" ({world_size})"
            )
        self.num_clips, self.batch_size, self.seed = num_clips, batch_size, seed
        self.rank, self.world_size = rank, world_size
        if isinstance(group, int):
            self.starts = torch.arange(0, num_clips + group, group).clamp(max=num_clips)
        else:
            self.starts = torch.tensor([0, *group]).cumsum(0)  # (groups + 1,)
        if self.starts[-1] != num_clips:
            raise ValueError(f"the groups have {int(self.starts[-1])} clips, the set {num_clips}")
        self.epoch = self.first = 0

    def __len__(self) -> int:
        return self.num_clips // self.batch_size

    def __iter__(self) -> Iterator[list[int]]:
        """Yield this rank's clips of each batch, beginning with batch ``first``."""
        generator = torch.Generator().manual_seed(mix(self.seed, self.epoch))
        order = torch.randperm(len(self.starts) - 1, generator=generator)
        sizes = self.starts.diff()[order]
        shift = self.starts[order] - (sizes.cumsum(0) - sizes)  # from place in the epoch to clip
        clips = torch.arange(self.num_clips) + shift.repeat_interleave(sizes)
        share = self.batch_size // self.world_size
        for batch in range(self.first, len(self)):
            start = batch * self.batch_size + self.rank * share
            yield clips[start : start + share].tolist()


def check_division(batch_size: int, processes: int, cut: int | None) -> None:
    """Check that a batch can be shared out in equal parts, each a multiple of ``cut`` clips.

    ``cut`` is that of :func:`fusion.models.batchnorm.batch_granularity`; None: any part will do.

    Raises:
        ValueError: it cannot; the message names the nearest batch that can, and other ways out.
    """
    unit = processes * (cut or 1)
    if batch_size % unit == 0:
        return
    below, above = batch_size // unit * unit, -(-batch_size // unit) * unit
    nearest = below if below and batch_size - below < above - batch_size else above
    ways, share = [f"set trainer.batch_size={nearest}, the nearest that can"], "equal parts"
    if cut is not None and cut > 1:
        share = f"parts of a multiple of {cut} clips, over which BatchNorm takes its statistics"
        if batch_size % processes == 0 and batch_size > processes:
            fits = math.gcd(batch_size // processes, cut)
            ways.append(f"lower batchnorm_group to {fits}" if fits > 1 else "")
        most = max(n for n in range(1, processes + 1) if batch_size % (n * cut) == 0 or n == 1)
        ways.append(f"start {most} processes" if most > 1 else "")
    raise ValueError(
        f"trainer.batch_size={batch_size} cannot be shared out to {processes}"
        f" process{'es' * (processes > 1)} in {share}: {', or '.join(filter(None, ways))}"
    )


def make_loader(
    train_set: TrainingSet,
    batches: EpochBatchSampler,
    collate: Callable[[Sequence[Any]], Batch],
    workers: int,
    accelerator: Accelerator,
) -> DataLoader[Any]:
    """Make what reads a rank's share of each batch, in so many worker processes; 0: in this one."""
    if workers > (cores := num_cores()) and accelerator.is_main_process:
        print(
            f"trainer.num_workers={workers}, but this machine has {number_of(cores, 'core')}:"
            " more workers only help where reading waits for the disk",
            file=sys.stderr,
        )
    # torch would say the same in each epoch of each process.
    warnings.filterwarnings("ignore", "This DataLoader will create")
    return DataLoader(
        cast(Dataset[Any], train_set),
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=workers,
        pin_memory=accelerator.device.type == "cuda",
        generator=torch.Generator(),  # else it would draw from the global one
    )


def clip_seeds(ids: Sequence[str], seed: int, epoch: int) -> Tensor:
    """Compute a seed for each clip from its id, the seed and the epoch: (B,) int64."""
    clips = np.array([zlib.crc32(name.encode()) for name in ids], dtype=np.uint64)
    return torch.from_numpy(_stir(clips ^ np.uint64(mix(seed, epoch))).view(np.int64))


def mix(*numbers: int) -> int:
    """Hash several numbers to one seed, so that neighbouring numbers give unrelated seeds."""
    mixed = 0x9E3779B97F4A7C15
    for number in numbers:
        mixed = int(_stir(np.array([mixed ^ (number & 0xFFFFFFFFFFFFFFFF)], dtype=np.uint64))[0])
    return mixed


def _stir(numbers: np.ndarray) -> np.ndarray:
    """Apply the rounds of splitmix64 (Steele et al., OOPSLA 2014) to uint64 numbers."""
    numbers = numbers * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
