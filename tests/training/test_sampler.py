import pytest
import torch

from fusion.training.sampler import EpochBatchSampler, check_division, clip_seeds, mix


def epoch(batches, number):
    batches.epoch = number
    return list(batches)


def test_each_clip_occurs_at_most_once_in_an_epoch():
    batches = epoch(EpochBatchSampler(23, 4, seed=0), 0)
    assert len(batches) == 5
    chosen = [clip for batch in batches for clip in batch]
    assert len(set(chosen)) == len(chosen) == 20


def test_the_order_is_a_function_of_seed_and_epoch():
    one, same, other = (EpochBatchSampler(23, 4, seed=s) for s in (0, 0, 1))
    assert epoch(one, 0) == epoch(same, 0) != epoch(other, 0)
    assert epoch(one, 0) != epoch(one, 1)


def test_groups_of_neighbours_stay_together_in_another_order_each_epoch():
    batches = EpochBatchSampler(24, 8, seed=0, group=4)
    for number in range(3):
        groups = [batch[start : start + 4] for batch in epoch(batches, number) for start in (0, 4)]
        assert all(group == list(range(group[0], group[0] + 4)) for group in groups)
        assert sorted(group[0] for group in groups) == list(range(0, 24, 4))
    assert epoch(batches, 0) != epoch(batches, 1)


@pytest.mark.parametrize("num_clips", [3, 6, 7, 9])
def test_clips_that_fill_no_group_are_trained_too(num_clips):
    batches = EpochBatchSampler(num_clips, 3, seed=0, group=8)
    chosen = [[clip for batch in epoch(batches, n) for clip in batch] for n in range(20)]
    assert all(len(set(clips)) == num_clips // 3 * 3 == len(batches) * 3 for clips in chosen)
    assert num_clips < 9 or set().union(*chosen) == set(range(num_clips))


def test_groups_may_have_different_sizes():
    sizes = [3, 1, 4, 1, 5, 2]
    batches = EpochBatchSampler(16, 16, seed=0, group=sizes)
    starts = [0, 3, 4, 8, 9, 14]
    orders = set()
    for number in range(3):
        (clips,) = epoch(batches, number)
        order = sorted(range(6), key=lambda group: clips.index(starts[group]))
        assert clips == [starts[g] + i for g in order for i in range(sizes[g])]
        orders.add(tuple(order))
    assert len(orders) > 1


def test_groups_that_miss_clips_are_an_error():
    with pytest.raises(ValueError, match=r"the groups have 15 clips, the set 16"):
        EpochBatchSampler(16, 4, seed=0, group=[5, 10])


@pytest.mark.parametrize("world_size", [2, 4])
def test_the_ranks_share_each_batch(world_size):
    whole = epoch(EpochBatchSampler(23, 4, seed=3), 2)
    shares = [epoch(EpochBatchSampler(23, 4, 3, rank, world_size), 2) for rank in range(world_size)]
    together = [[c for part in parts for c in part] for parts in zip(*shares, strict=True)]
    assert together == whole


def test_an_epoch_can_be_entered_in_the_middle():
    batches = EpochBatchSampler(23, 4, seed=0)
    whole = epoch(batches, 1)
    batches.first = 3
    assert epoch(batches, 1) == whole[3:]


@pytest.mark.parametrize(
    ("batch_size", "world_size", "message"),
    [
        (24, 1, "trainer.batch_size \\(24\\) must be between 1 and .* \\(23\\)"),
        (0, 1, "trainer.batch_size \\(0\\)"),
        (5, 2, "\\(5\\) must be a multiple of the number of processes \\(2\\)"),
    ],
)
def test_impossible_batches_are_explained(batch_size, world_size, message):
    with pytest.raises(ValueError, match=message):
        EpochBatchSampler(23, batch_size, 0, 0, world_size)


def test_mixed_seeds_differ_where_their_parts_differ():
    seeds = {mix(a, b, c) for a in range(5) for b in range(5) for c in range(5)}
    assert len(seeds) == 125


def test_the_seed_of_a_clip_follows_from_run_epoch_and_clip_alone():
    ids = [f"clip {i}" for i in range(1000)]
    seeds = clip_seeds(ids, 3, 1)
    assert seeds.dtype == torch.int64
    assert len(set(seeds.tolist())) == 1000
    assert clip_seeds(ids[500:], 3, 1).equal(seeds[500:])
    for other in (clip_seeds(ids, 4, 1), clip_seeds(ids, 3, 2)):
        assert not (other == seeds).any()
    assert 400 < (seeds < 0).sum() < 600  # all 64 bits are used


@pytest.mark.parametrize(
    ("batch", "processes", "cut", "ways"),
    [
        (64, 16, 8, "=128, the nearest that can, or lower batchnorm_group to 4, or start 8 proc"),
        (64, 64, 8, "=512, the nearest that can, or start 8 processes"),
        (70, 3, 1, "=69, the nearest that can"),
        (70, 3, None, "=69, the nearest that can"),
        (100, 1, 32, "=96, the nearest that can, or lower batchnorm_group to 4"),
        (1120, 64, 35, "=2240, the nearest that can, or start 32 processes"),
    ],
)
def test_a_batch_that_cannot_be_shared_out_names_the_nearest_that_can(batch, processes, cut, ways):
    with pytest.raises(ValueError, match=f"trainer.batch_size={batch} cannot .*") as caught:
        check_division(batch, processes, cut)
    assert ways in str(caught.value)
    nearest = int(str(caught.value).split("trainer.batch_size=")[2].split(",")[0])
    check_division(nearest, processes, cut)
    offered = [n for n in range(1, 4 * batch * processes) if n % (processes * (cut or 1)) == 0]
    assert abs(nearest - batch) == min(abs(n - batch) for n in offered)
