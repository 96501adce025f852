"""The batch that was asked for, however it is cut and whatever memory does; see cuts.py."""

import functools
import itertools
import json
import signal
import sys
from types import SimpleNamespace

import pytest
import torch

from fusion.losses import CombinatorialLoss
from fusion.training.launch import Stopped
from fusion.training.log import read_metrics
from fusion.training.memory import OutOfMemory
from tests.training import cuts


@pytest.fixture(scope="module")
def references(tmp_path_factory):
    """Give the file of the reference, of all cells or of few."""

    @functools.cache
    def write(thorough=False):
        path = tmp_path_factory.mktemp("reference") / "reference.pt"
        cuts.write_reference(path, thorough)
        return path

    return write


@pytest.fixture
def reference(references):
    return references()


@pytest.mark.parametrize("thorough", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_chunks_and_memory_that_runs_out_change_nothing_on_one_process(references, thorough):
    expected = torch.load(references(thorough))
    print(cuts.compare(expected, thorough))
    print(cuts.compare_with_faults(expected, thorough))
    cell = ("nothing", "groups", "float64")  # that the negative control differs in nothing else
    local = cuts.run(*cell, loss=cuts.LocalNegatives())[0]
    assert cuts.difference(local, expected[cell]) < 1e-10


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("world_size", "words"),
    [
        (2, []),
        (4, ["--few"]),
        pytest.param(8, ["--few"], marks=pytest.mark.slow),
        pytest.param(2, ["--thorough"], marks=pytest.mark.slow),
        pytest.param(4, ["--thorough"], marks=pytest.mark.slow),
    ],
)
def test_f09_they_change_nothing_on_several_processes(tool, references, world_size, words):
    script, reference = "tests/training/cuts.py", references("--thorough" in words)
    code, output, errors = tool(script, reference, *words, processes=world_size, timeout=580)
    assert code == 0, errors
    result = json.loads(output.splitlines()[-1])
    print(result)
    assert result["with faults"]["runs"] == {"--thorough": 72, "--few": 4, "": 12}["".join(words)]


def test_what_a_loss_remembers_is_in_the_checkpoint(reference, tmp_path):
    """The queue and the clusters of MCN go on where the run was stopped."""
    cell = ("something", "mcn", "float64")
    trainer = cuts.make_trainer(tmp_path, *cell)
    step, count = trainer.step, itertools.count(1)

    def take(batch):
        if next(count) == 3:
            signal.raise_signal(signal.SIGTERM)
        return step(batch)

    take.probe = step.probe
    trainer.step = take
    with pytest.raises(Stopped):
        trainer.fit()
    trainer = cuts.make_trainer(tmp_path, *cell)
    trainer.resume()
    assert trainer.steps_done == 3
    trainer.fit()
    assert cuts.difference(trainer.unwrapped.state_dict(), torch.load(reference)[cell]) == 0


def test_accumulating_the_losses_of_chunks_is_another_run(reference, tmp_path):
    class Naive(CombinatorialLoss):
        compares_clips = False

    expected = torch.load(reference)["nothing", "groups", "float64"]
    loss = Naive(cuts.NAMES, cuts.TERMS)
    trainer = cuts.make_trainer(tmp_path, "nothing", "groups", "float64", 0.5, loss)
    trainer.fit()
    assert cuts.difference(trainer.unwrapped.state_dict(), expected) > 0.01


def test_the_chunk_that_fits_is_kept_said_once_and_saved(tmp_path, capsys):
    trainer = cuts.make_trainer(tmp_path, "nothing", "groups", "float64")
    step, failures = trainer.step, iter([True, False, True])

    def forward(model, inputs):
        if next(failures, False):
            raise torch.OutOfMemoryError("CUDA out of memory, says the test")

    def begin(batch):
        begin.handle = begin.handle or trainer.model.register_forward_pre_hook(forward)
        return step(batch)

    begin.probe, begin.handle = step.probe, None
    trainer.step = begin
    trainer.fit()
    assert trainer.chunk.size == 8
    said = [line for line in capsys.readouterr().err.splitlines() if "clips at a time" in line]
    assert said == [
        "from step 1 on 8 of 32 clips at a time, as memory allows; the batch is 32 as before"
    ]
    rows = [r for r in read_metrics(tmp_path / "metrics.jsonl") if r["event"] == "memory"]
    assert [row["chunk/0"] for row in rows] == [8]
    resumed = cuts.make_trainer(tmp_path, "nothing", "groups", "float64")
    resumed.resume()
    assert (resumed.chunk.size, resumed.chunks) == (8, [8])


@pytest.mark.parametrize("chunk", [0.0625, None])
def test_when_nothing_fits_the_error_says_what_would(tmp_path, chunk):
    trainer = cuts.make_trainer(tmp_path, "nothing", "groups", "float64", chunk)

    def forward(model, inputs):
        raise torch.OutOfMemoryError("CUDA out of memory, says the test")

    trainer.model.register_forward_pre_hook(forward)
    with pytest.raises(
        OutOfMemory, match=r"not even 2 clips .* fit .* share of 32; lower batchnorm_group"
    ):
        trainer.fit()


def test_other_errors_are_not_taken_for_a_lack_of_memory(tmp_path):
    trainer = cuts.make_trainer(tmp_path, "nothing", "groups", "float64")
    trainer.step.chunk.size = 16
    trainer.found_chunk = True

    def forward(model, inputs):
        raise RuntimeError("shapes differ")

    trainer.model.register_forward_pre_hook(forward)
    with pytest.raises(RuntimeError, match="shapes differ"):
        trainer.fit()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process")
def test_a_real_lack_of_memory_is_survived(tool):
    """With a limit on its memory a process fails to allocate, and still takes the same steps."""
    results = []
    for limit in (0, 200):  # MiB beyond what is there before the first step; 90 is too little
        code, output, errors = tool("tests/training/scarce.py", limit)
        assert code == 0, errors
        results.append(json.loads(output.splitlines()[-1]))
    free, limited = results
    assert free["chunk"] == 128
    assert limited["chunk"] < 128
    assert limited["losses"] == pytest.approx(free["losses"], rel=1e-5)


def test_a_scaler_begins_the_step_again_as_if_nothing_had_happened(tmp_path):
    """That of fp16 refuses to unscale a second time, unless it is told that a step was undone."""
    trainer = cuts.make_trainer(tmp_path, "nothing", "groups", "float32")
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    trainer.step.accelerator = SimpleNamespace(scaler=scaler, device=torch.device("cpu"))
    optimizer = trainer.optimizer.optimizer
    for _ in range(3):
        value = sum(p.sum() for p in trainer.model.parameters())
        scaler.scale(value).backward()
        scaler.unscale_(optimizer)
        assert all((p.grad == 1).all() for p in trainer.model.parameters())
        trainer.step._undo()
        assert scaler.get_scale() == 8.0
        assert all(p.grad is None for p in trainer.model.parameters())
