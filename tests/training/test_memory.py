"""The size of a chunk: its rules, the probe, and what counts as a lack of memory."""

import dataclasses

import pytest
import torch

from fusion.data.datasets.dataset import collate
from fusion.models.batchnorm import GroupedBatchNorm, batch_granularity
from fusion.tokens import Batch, Tokens
from fusion.training import memory
from fusion.training.memory import ChunkSize, features_of, free_bytes, is_out_of_memory, probe
from tests.training import cuts


@pytest.mark.parametrize(
    ("share", "cut", "most", "size"),
    [(64, 16, None, 64), (64, 16, 32, 32), (64, 16, 128, 64), (60, 1, 7, 7), (64, None, None, 64)],
)
def test_a_chunk_is_what_was_asked_for_or_the_share(share, cut, most, size):
    assert ChunkSize(share, cut, most).size == size


@pytest.mark.parametrize(
    ("share", "cut", "limit", "size"),
    [(64, 16, 40, 32), (64, 16, 3, 16), (60, 4, 50, 32), (100, 1, 99, 50), (64, 16, 900, 64)],
)
def test_a_limit_gives_even_chunks_in_multiples_of_the_cut(share, cut, limit, size):
    chunk = ChunkSize(share, cut)
    chunk.limit(limit)
    assert chunk.size == size


def test_halving_ends_at_one_group():
    chunk, sizes = ChunkSize(96, 8), []
    while chunk.halve():
        sizes.append(chunk.size)
    assert sizes == [48, 24, 8]
    assert chunk.size == 8
    assert not ChunkSize(96, None).halve()


def clips_of(*lengths):
    """A batch of clips of so many words of two numbers."""
    words = Tokens.pack([torch.zeros(length, 2) for length in lengths])
    return Batch(tuple(map(str, range(len(lengths)))), {"text": words})


def test_chunks_grow_again_after_a_batch_of_long_clips():
    chunk, short, long = ChunkSize(8, 1), clips_of(*[10] * 8), clips_of(*[40] * 8)
    assert [len(part.ids) for part in chunk.split(short)] == [8]
    assert [len(part.ids) for part in chunk.split(long)] == [8]
    assert chunk.halve() and chunk.halve()
    assert [len(part.ids) for part in chunk.split(long)] == [2, 2, 2, 2]
    assert len(chunk.split(short)[0].ids) == 4
    assert sum(features_of(chunk.split(short)[0])) <= chunk.fits


def test_a_chunk_grows_after_many_good_steps_and_waits_longer_if_that_was_too_much():
    chunk, batch = ChunkSize(8, 1), clips_of(*[10] * 8)
    chunk.split(batch)
    assert chunk.halve() and chunk.size == 4
    grown = [chunk.count_step() for _ in range(memory.GROW_AFTER)]
    assert grown == [False] * (memory.GROW_AFTER - 1) + [True]
    assert len(chunk.split(batch)) == 1
    assert chunk.halve() and chunk.size == 4  # it was too much
    assert not any(chunk.count_step() for _ in range(2 * memory.GROW_AFTER - 1))
    assert chunk.count_step()
    assert not any(chunk.count_step() for _ in range(3 * memory.GROW_AFTER))  # it is whole


def test_a_limit_of_clips_becomes_one_of_features():
    chunk = ChunkSize(8, 1)
    chunk.limit(2)  # before any batch is known, such as after resuming
    assert len(chunk.split(clips_of(*[10] * 8))) == 4
    assert len(chunk.split(clips_of(*[4] * 8))) == 2


def test_halving_always_ends():
    generator = torch.Generator().manual_seed(0)
    for cut in (1, 4):
        lengths = torch.randint(0, 50, (48,), generator=generator).tolist()
        chunk = ChunkSize(48, cut)
        chunk.split(clips_of(*lengths))
        while chunk.size > cut:
            before = chunk.size
            assert chunk.halve()
            chunk.split(clips_of(*lengths))
            assert cut <= chunk.size < before and not chunk.size % cut
        assert not chunk.halve()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            (64, 24, None),
            "the 64 clips of a process in a batch must be a multiple of 24, .* lower batchnorm_",
        ),
        ((64, 16, 24), r"trainer.chunk_size \(24\) must be a multiple of batchnorm_group \(16\)"),
        ((64, None, 32), r"trainer.chunk_size \(32\) would change the result"),
    ],
)
def test_cuts_that_would_change_the_result_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        ChunkSize(*words)


@pytest.mark.parametrize(
    ("norms", "cut"),
    [
        ([], 1),
        ([GroupedBatchNorm(3, group=4), GroupedBatchNorm(3, group=6)], 12),
        ([GroupedBatchNorm(3, group=4), GroupedBatchNorm(3)], None),
        ([GroupedBatchNorm(3, frozen=True), GroupedBatchNorm(3, 5, frozen=True)], 1),
        ([torch.nn.BatchNorm1d(3)], None),
    ],
)
def test_batchnorm_says_where_a_batch_can_be_cut(norms, cut):
    assert batch_granularity(torch.nn.Sequential(torch.nn.Linear(3, 3), *norms)) == cut


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (MemoryError(), True),
        (
            RuntimeError("[enforce fail] CPUAllocator: can't allocate memory: you tried"),
            True,
        ),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), True),
        (RuntimeError("shapes differ"), False),
        (ValueError("out of memory of mine"), False),
    ],
)
def test_what_a_lack_of_memory_looks_like(error, answer):
    assert is_out_of_memory(error) is answer


def test_a_real_allocation_that_fails_is_a_lack_of_memory():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value)


def test_the_free_memory_is_less_than_all_of_it(monkeypatch, tmp_path):
    free = free_bytes(torch.device("cpu"))
    assert 0 < free < 2**45
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "CONTAINER_LIMITS", [str(limit)])
    limit.write_text("max\n")  # no limit
    assert free_bytes(torch.device("cpu")) > 0
    limit.write_text("1000\n")
    assert free_bytes(torch.device("cpu")) == 0


@pytest.mark.parametrize("room", [0, 20, 100])
def test_a_probe_finds_the_clips_that_fit(monkeypatch, tmp_path, room):
    """Of as many clips as were found to fit, the activations do take as much memory as there is."""
    trainer = cuts.make_trainer(tmp_path, "nothing", "groups", "float32")
    clips = [trainer.train_set[0] | {"id": f"clip {i}"} for i in range(cuts.BATCH)]  # as long
    seeds = next(trainer.rest_of_epoch()).seeds
    batch = dataclasses.replace(collate(clips), seeds=seeds)
    monkeypatch.setattr(memory, "FEWEST", 2)
    cpu = torch.device("cpu")
    taken = {n: memory._bytes_of(trainer._embed, batch.chunks(n)[0], cpu)[0] for n in (4, 16, 32)}
    assert taken[32] > 1.8 * taken[16] > 3 * taken[4]
    outputs = memory._bytes_of(trainer._embed, batch, cpu)[1]
    beside = 2 * outputs + sum(p.nbytes for p in trainer.model.parameters())
    free = (taken[16] * (1 + room / 100) + beside) / memory.USED
    monkeypatch.setattr(memory, "free_bytes", lambda device: free)
    before = {name: tensor.clone() for name, tensor in trainer.unwrapped.state_dict().items()}
    probe(trainer.chunk, trainer.model, batch, trainer._embed)
    assert trainer.chunk.size == (32 if room == 100 else 16)
    for name, tensor in trainer.unwrapped.state_dict().items():
        assert tensor.equal(before[name]), name
    assert all(p.grad is None for p in trainer.model.parameters())


def test_a_batch_that_cannot_be_cut_is_not_probed():
    probe(ChunkSize(64, None), torch.nn.Linear(2, 2), None, None)
