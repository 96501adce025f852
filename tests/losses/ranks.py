"""One rank of a test of the collectives: its share of the loss against the whole batch alone.

    torchrun --nproc_per_node 4 tests/losses/ranks.py

Ends with an error if a value or a gradient differs.
"""

import functools
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parents[2]))

from fusion.distributed import all_gather, all_reduce_mean_, broadcast_, collectives, own_rows
from fusion.losses import CombinatorialLoss, mms, nce
from fusion.losses.clusters import ClusterLoss
from tests.losses import plain
from tools.benchmarks.collectives import Collectives

NAMES = ("text", "video", "audio")
TERMS = {"t|v": 1.0, "t|a": 0.1, "v|a": 0.1, "t|va": 0.1, "v|ta": 0.1, "a|tv": 0.1}
COMBINATIONS = ["t", "v", "a", "tv", "ta", "va"]
SHARES = (1, 3)  # rows of each rank
GONE = {  # modality that the first rank's clips, or all, lack
    "nothing": None,
    "on one rank": False,
    "everywhere": True,
}


def close(ours, theirs, what):
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-13, msg=lambda m: f"{what}: {m}")


def check_pairs(total, mine):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, total, 6, generator=generator, dtype=torch.float64)
    for ours, definition, setting in [
        (nce, plain.nce, {"temperature": 0.05}),
        (mms, plain.mms, {"margin": 0.1}),
        (functools.partial(mms, normalize=False), plain.mms_dot, {"margin": 0.1}),
    ]:
        for tile in (None, 2):
            whole = [side.clone().requires_grad_() for side in (x, y)]
            expected = definition(*whole, **setting)
            expected.backward()
            own = [side[mine].clone().requires_grad_() for side in (x, y)]
            value = ours(*own, tile=tile, **setting)
            value.backward()
            close(value, expected.detach(), "value")
            for part, side in zip(own, whole, strict=True):
                close(part.grad, side.grad[mine] * dist.get_world_size(), "gradient")


def check_terms(total, mine, gone):
    generator = torch.Generator().manual_seed(1)
    embeddings = {
        c: torch.randn(total, 5, generator=generator, dtype=torch.float64) for c in COMBINATIONS
    }
    present = {name: torch.ones(total, dtype=torch.bool) for name in NAMES}
    if gone is not None:
        present["audio"][: total if gone else total // dist.get_world_size()] = False
    for kind in ("nce", "mms_dot"):
        check_loss(CombinatorialLoss(NAMES, TERMS, kind), embeddings, present, mine)


def check_loss(loss, embeddings, present, mine):
    whole = {c: e.clone().requires_grad_() for c, e in embeddings.items()}
    expected = plain.combinatorial_loss(loss, whole, present)
    expected.backward()
    own = {c: e[mine].clone().requires_grad_() for c, e in embeddings.items()}
    value, _ = loss(own, {m: p[mine] for m, p in present.items()})
    value.backward()
    close(value, expected.detach(), "value")
    for c in COMBINATIONS:
        exact = torch.zeros_like(embeddings[c]) if whole[c].grad is None else whole[c].grad
        close(own[c].grad, exact[mine] * dist.get_world_size(), c)


def check_gather(total, mine):
    rows = torch.arange(total * 2, dtype=torch.float64).reshape(-1, 2)
    own = rows[mine].clone().requires_grad_()
    everything = all_gather(own)
    close(everything.detach(), rows, "rows")
    (everything * rows).sum().backward()
    close(own.grad, rows[mine] * dist.get_world_size(), "gradient of rows")


def check_clusters(total, mine):
    """Four steps of clustering, with a queue, against the plain version on whole batches."""
    generator = torch.Generator().manual_seed(2)
    ours, theirs = (kind(3, 2, 2, 2, 0.001) for kind in (ClusterLoss, plain.ClusterLoss))
    for step in range(5):
        sides = torch.randn(3, total, 4, generator=generator, dtype=torch.float64)
        present = torch.ones(3, total, dtype=torch.bool)
        present[2, : total // 4] = step % 2 == 0  # with four ranks all clips of the first
        whole = [side.clone().requires_grad_() for side in sides]
        expected = theirs(whole, present)
        expected.backward()
        own = [side[mine].clone().requires_grad_() for side in sides]
        value, _ = ours(own, present[:, mine])
        value.backward()
        ours.commit()
        close(value, expected.detach(), "cluster loss")
        for part, side in zip(own, whole, strict=True):
            close(part.grad, side.grad[mine] * dist.get_world_size(), "gradient of clusters")


def check_average():
    rank, ranks = dist.get_rank(), dist.get_world_size()
    shapes = [(3,), (2, 2), (50,), (0,), (4, 3)]
    mine = [torch.full(shape, float(rank + i)) for i, shape in enumerate(shapes)]
    mine.insert(2, torch.full((2,), float(rank), dtype=torch.float64))
    mine.append(torch.full((6, 4), float(rank)).T)  # not contiguous
    collectives.BUCKET_BYTES = 100  # two tensors in some buckets, one too large for any
    all_reduce_mean_(mine)
    mean = (ranks - 1) / 2
    for tensor, offset in zip(mine, [0, 1, 0, 2, 3, 4, 0], strict=True):
        close(tensor.double(), torch.full(tensor.shape, mean + offset).double(), "average")
    copied = [torch.full((3,), float(rank + 1))]
    broadcast_(copied)
    close(copied[0].double(), torch.ones(3).double(), "copy")


def check_counts():
    """What six terms send, by the formulas of docs/exact_step.md."""
    ranks, b, width, size = dist.get_world_size(), 8, 5, 8
    columns, terms = 3, len(TERMS)
    sides = {c: torch.randn(b, width).double().requires_grad_() for c in COMBINATIONS}
    present = {name: torch.ones(b, dtype=torch.bool) for name in NAMES}
    for kind, sums in ("nce", 1), ("mms_dot", 2):  # dot products need a maximum too
        with Collectives() as counted:
            CombinatorialLoss(NAMES, TERMS, kind)(sides, present)[0].backward()
        reduced = 2 * (ranks - 1) / ranks * size * terms * (sums * ranks * b + 1)
        expected = {
            "gather": (ranks - 1) * b * size * (columns * width + terms),
            "scatter": (ranks - 1) * b * size * columns * width,
            "reduce": reduced,
        }
        assert counted.sent == pytest.approx(expected)
        found = [counted.counts[name] for name in ("gather", "scatter", "reduce", "votes")]
        assert found == [1 + columns, columns, sums * columns + 1, 0], found
        # Nothing holds more than the columns of one list.
        block = ranks * b * max(width, terms) * size
        assert max(counted.largest.values()) == block, counted.largest


def main():
    dist.init_process_group("gloo")
    for share in SHARES:
        total, mine = share * dist.get_world_size(), own_rows(share)
        check_gather(total, mine)
        check_pairs(total, mine)
        if share > 1:
            check_clusters(total, mine)
        for lacks, gone in GONE.items():
            check_terms(total, mine, gone)
            if dist.get_rank() == 0:
                print(f"{share} rows, audio gone {lacks}: equal")
    check_average()
    check_counts()
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
