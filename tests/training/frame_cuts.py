"""A run of EAO whose video is TSM on frames, cut over processes and into chunks, as in cuts.py.

    torchrun --nproc_per_node 2 tests/training/frame_cuts.py REFERENCE.pt

compares with the run of one process that takes its batches whole (:func:`write_reference`).
"""

import functools
import sys
from pathlib import Path
from unittest import mock

import torch
import torch.distributed as dist
from accelerate import Accelerator

sys.path.insert(0, str(Path(__file__).parents[2]))

from fusion.models import EAO
from fusion.training.sampler import EpochBatchSampler
from tests.training import cuts
from tests.training.doubles import ClipList

LACKING = ("nothing", "something", "frames on a rank")
NETWORK = {"block": "basic", "layers": [1, 1, 1, 1], "widths": [8, 8, 8, 8]}
SETTINGS = {
    "groups": {"batchnorm_group": cuts.GROUP},
    "frozen": {"batchnorm_frozen": True},
    "checkpointing": {"batchnorm_group": cuts.GROUP, "checkpointing": True},
}
CELLS = [(lacking, "groups") for lacking in LACKING] + [("something", "frozen")]


@functools.cache
def make_clips(lacking, dtype):
    """Draw clips; with "frames on a rank" the first half of every batch has none."""
    generator = torch.Generator().manual_seed(0)
    count = cuts.BATCH * cuts.STEPS
    order = [i for batch in EpochBatchSampler(count, cuts.BATCH, cuts.SEED) for i in batch]
    blind = {clip for place, clip in enumerate(order) if place % cuts.BATCH < cuts.BATCH // 2}
    clips = []
    for number in range(count):
        gone = lacking == "something" and number % 5 == 0
        gone = gone or (lacking == "frames on a rank" and number in blind)
        frames = int(torch.randint(2, 5, (), generator=generator))
        pixels = torch.randint(0, 256, (frames, 3, 16, 16), generator=generator, dtype=torch.uint8)
        clip = {"id": f"clip {number}", "video": pixels[: 0 if gone else frames]}
        for name, width in (("text", 6), ("audio", 12)):
            values = torch.randn(3, width, generator=generator, dtype=torch.float64)
            clip[name] = values.to(dtype)
        clips.append({key: clip[key] for key in ("id", *cuts.NAMES)})
    return ClipList(clips)


def make_model(kind, dtype):
    torch.manual_seed(0)
    encoder = {"name": "tsm", "network": NETWORK, "shift_div": 4, **SETTINGS[kind]}
    modalities = {"text": {"dim": 6}, "video": {"encoder": encoder}, "audio": {"dim": 12}}
    combinations = ["t", "v", "a", "tv", "ta", "va"]
    model = EAO(modalities, combinations, 16, 10, num_heads=2, dropout=0.1).to(dtype)
    for norm in model.encoders["video"].modules():  # the last one of a block begins with zeros
        if isinstance(norm, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
    return model


def run(lacking, kind, chunk=None):
    """Train four steps; give parameters and running statistics."""
    with mock.patch.multiple(cuts, make_clips=make_clips, make_model=make_model):
        return cuts.run(lacking, kind, "float64", chunk)[0]


def write_reference(path):
    torch.save({cell: run(*cell) for cell in CELLS}, path)


def main():
    Accelerator(cpu=True)
    torch.set_num_threads(1)
    reference = torch.load(sys.argv[1])
    largest = max(cuts.difference(run(*cell, 0.25), reference[cell]) for cell in CELLS)
    assert largest <= cuts.ALLOWED["float64"], largest
    if dist.get_rank() == 0:
        print(largest)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
