"""One run, cut in every way: over processes, into chunks, with memory running out.

    torchrun --nproc_per_node 4 tests/training/cuts.py REFERENCE.pt [--thorough | --few]

compares what each of this many processes has after four steps with the run of one process that
takes its batches whole (:func:`write_reference`), prints the largest differences as JSON and ends
with an error if one is too large.
"""

import contextlib
import functools
import gc
import io
import itertools
import json
import math
import sys
import tempfile
from pathlib import Path
from unittest import mock

import torch
import torch.distributed as dist
from accelerate import Accelerator
from safetensors.torch import save_model

sys.path.insert(0, str(Path(__file__).parents[2]))

from fusion.checkpoint import WEIGHTS
from fusion.data.datasets.dataset import collate
from fusion.distributed import CommunicationError, collectives, exchange
from fusion.interfaces import Loss
from fusion.losses import CombinatorialLoss, MCNLoss
from fusion.models import EAO, MCN
from fusion.models.batchnorm import GroupedBatchNorm
from fusion.models.davenet import ENCODERS
from fusion.tokens import Tokens
from fusion.training.run_folder import RunFolder
from fusion.training.sampler import EpochBatchSampler
from fusion.training.settings import Settings
from fusion.training.trainer import Trainer
from tests.losses import plain
from tests.training.doubles import ClipList
from tools.benchmarks.collectives import Collectives

SEED, BATCH, STEPS, GROUP = 3, 32, 4, 2
NAMES = ("text", "video", "audio")
TERMS = {"t|v": 1.0, "t|a": 0.5, "v|a": 0.5, "t|va": 1.0, "v|ta": 0.1, "a|tv": 0.1}
ALLOWED = {"float32": 1e-6, "float64": 1e-12}
CHUNKS = (None, 0.25, 0.5, 0.75)  # of a rank's share
LACKING = ("nothing", "something", "audio on a rank")
KINDS = ("groups", "frozen", "mcn")  # EAO with BatchNorm over groups or frozen; MCN with groups
STAGES = (
    "embedding",
    "between exchanges of the loss",
    "loss",
    "backward pass of the loss",
    "embedding again",
    "backward pass",
    "averaging",
    "clipping",
)
WORDS = ("--thorough", "--few")
SENDING = "sending a bucket"  # of gradients, while the last chunk is computed

BUCKET_BYTES = 4000  # several buckets


@functools.cache
def make_clips(lacking, dtype):
    """Draw clips; with "audio on a rank" the first half of every batch has no sound."""
    generator = torch.Generator().manual_seed(0)
    order = [clip for batch in EpochBatchSampler(BATCH * STEPS, BATCH, SEED) for clip in batch]
    silent = {clip for place, clip in enumerate(order) if place % BATCH < BATCH // 2}
    clips = []
    for number in range(BATCH * STEPS):
        gone = {"audio"} if lacking == "audio on a rank" and number in silent else set()
        if lacking == "something" and number % 3:
            gone = {NAMES[number // 3 % 3]}
        clip = {"id": f"clip {number}"}
        for name, width, longest in zip(NAMES, (6, 7, 12), (5, 4, 16), strict=True):
            count = int(torch.randint(1, longest + 1, (), generator=generator))
            values = torch.randn(count, width, generator=generator, dtype=torch.float64)
            clip[name] = values[: 0 if name in gone else count].to(dtype)
        clips.append(clip)
    return ClipList(clips)


class SoundEncoder(torch.nn.Module):
    """DAVEnet is slow to start and has tests of its own; this has one convolution and BatchNorm."""

    in_dim, out_dim = 12, 8

    def __init__(self, frozen):
        super().__init__()
        self.conv = torch.nn.Conv1d(12, self.out_dim, 4, 4, bias=False)
        self.norm = GroupedBatchNorm(self.out_dim, group=GROUP, frozen=frozen)

    def forward(self, frames):
        """Make a token of each four frames: of 16, padded with zeros."""
        padded, _ = frames.pad(16)
        tokens = self.norm(self.conv(padded.mT)[:, :, None])[:, :, 0].relu().mT
        lengths, host_lengths = ((n + 3) // 4 for n in (frames.lengths, frames.host_lengths))
        return Tokens.unpad(tokens, lengths, host_lengths)


def make_model(kind, dtype):
    """Build a model with all that could depend on the cut: BatchNorm and dropout."""
    torch.manual_seed(0)
    encoder = {"name": "tiny", "frozen": kind == "frozen"}
    modalities = {"text": {"dim": 6}, "video": {"dim": 7}, "audio": {"encoder": encoder}}
    combinations = ["t", "v", "a", "tv", "ta", "va"]
    with mock.patch.dict(ENCODERS, tiny=SoundEncoder):
        if kind == "mcn":
            return MCN(modalities, 10, 6).to(dtype)
        return EAO(modalities, combinations, 16, 10, num_heads=2, dropout=0.1).to(dtype)


def make_loss(kind):
    """Build the loss; that of MCN clusters in every second step, soon with a full queue."""
    if kind == "mcn":
        return MCNLoss(NAMES, clusters=3, queue_batches=2, queue_stride=2, every=2)
    return CombinatorialLoss(NAMES, TERMS)


def make_trainer(folder, lacking, kind, dtype, chunk=None, loss=None, cpu=True, **settings):
    """Build a run of four steps."""
    accelerator = Accelerator(cpu=cpu)
    share = BATCH // accelerator.num_processes
    loss = loss or make_loss(kind)
    run = RunFolder(folder, {"seed": SEED, "resume": False, "overwrite": False, "output": "x"})
    run.path.mkdir(parents=True, exist_ok=True)
    return Trainer(
        model=make_model(kind, getattr(torch, dtype)),
        loss=loss,
        train_set=make_clips(lacking, getattr(torch, dtype)),
        collate=collate,
        settings=Settings(
            epochs=1,
            batch_size=BATCH,
            learning_rate=0.002,
            chunk_size=chunk and int(chunk * share),
            max_grad_norm=9.0,
            **settings,
        ),
        seed=SEED,
        accelerator=accelerator,
        folder=run,
        write_model=lambda path, model: save_model(model, path / WEIGHTS),
        evaluate=lambda model: {"score": 0.0},
        arguments=lambda clips: {"skip_incomplete": True, "seeds": clips.seeds},
    )


class FailingLoss:
    """A loss with its state, but another call."""

    def __init__(self, loss, call):
        self.loss, self.call = loss, call

    def __call__(self, *words):
        return self.call(*words)

    def __getattr__(self, name):
        return getattr(self.loss, name)


class Faults:
    """Makes a trainer run out of memory once in each step, at another stage each time.

    Args:
        trainer: whose chunks are set back to where they were before each step.
        stages: one for each step.
        here: whether this is a rank that fails.
    """

    def __init__(self, trainer, stages, here):
        self.trainer, self.stages, self.here = trainer, list(stages), here
        self.count, self.armed, self.asked = 0, None, 0
        self.step, trainer.step = trainer.step, self
        self.probe, self.agreement = self.step.probe, self.step.agreement
        self.loss, self.step.loss = self.step.loss, FailingLoss(self.step.loss, self.lose)
        self.collective = exchange.begin
        self.send, self.step.buckets._send = self.step.buckets._send, self.do_send
        self.average, self.step._average = self.step._average, self.do_average
        self.check, trainer.guard.check = trainer.guard.check, self.do_check
        trainer.model.register_forward_hook(self.after_forward)

    def __call__(self, batch):
        self.trainer.chunk.fits, self.asked = math.inf, 0
        self.armed = self.stages.pop(0) if self.here else None
        return self.step(batch)

    def fail(self, stage):
        if self.armed == stage:
            self.armed, self.count = None, self.count + 1
            raise torch.OutOfMemoryError(f"{stage}: out of memory, says the test")

    def failing(self, stage, tensor):
        tensor.register_hook(lambda gradient: self.fail(stage))

    def after_forward(self, model, inputs, outputs):
        self.fail("embedding")
        if torch.is_grad_enabled():
            self.fail("embedding again")
            if self.armed == "backward pass":
                self.failing("backward pass", next(iter(outputs.values())))

    def lose(self, *words):
        self.fail("loss")
        value, terms = self.loss(*words)
        if self.armed == "backward pass of the loss":
            self.failing("backward pass of the loss", value)
        return value, terms

    def begin(self, *words):
        self.asked += 1
        if self.asked == 3:
            self.fail("between exchanges of the loss")
        return self.collective(*words)

    def do_send(self):
        if self.step.buckets._next == 1:
            self.fail(SENDING)
        self.send()

    def do_average(self, norms):
        self.fail("averaging")
        self.average(norms)

    def do_check(self, *words):
        self.check(*words)
        self.fail("clipping")


def run(*words, stages=None, here=False, loss=None, **settings):
    """Train; give parameters and running statistics, the chunk at the end, and faults had."""
    several = mock.patch.object(collectives, "BUCKET_BYTES", BUCKET_BYTES)
    with tempfile.TemporaryDirectory() as folder, several:
        trainer = make_trainer(Path(folder), *words, loss=loss, **settings)
        assert len(trainer.step.buckets.buckets) > 1
        faults = Faults(trainer, stages, here) if stages else None
        begin = faults.begin if faults else exchange.begin
        with (
            mock.patch.object(exchange, "begin", begin),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            trainer.fit()
    state = {name: tensor.clone() for name, tensor in trainer.unwrapped.state_dict().items()}
    return state, trainer.chunk.size, faults.count if faults else 0


def difference(ours, theirs):
    """Compare parameters and running statistics.

    Without the bias of the keys of attention. It adds the same to all scores of a query, so the
    softmax takes it away again: its gradient is zero, and Adam makes steps of what rounding leaves.

    Returns:
        The relative difference of all parameters, and that of all statistics, each as one vector;
        in float64, where it says more, the largest of a single tensor.
    """
    largest, parts = 0.0, {"parameters": [], "statistics": []}
    for name, tensor in theirs.items():
        if not tensor.is_floating_point():
            assert ours[name].equal(tensor), name
            continue
        own = ours[name]
        if name.endswith("qkv.bias"):
            own, tensor = ((x[: len(x) // 3], x[-(len(x) // 3) :]) for x in (own, tensor))
            own, tensor = torch.cat(own), torch.cat(tensor)
        pair = (own - tensor).norm().item(), tensor.norm().item()
        parts["statistics" if "running" in name else "parameters"].append(pair)
        if tensor.dtype == torch.float64:
            largest = max(largest, pair[0] / max(pair[1], 1e-12))
    for pairs in parts.values():
        distances, lengths = zip(*pairs, strict=True)
        largest = max(largest, math.hypot(*distances) / math.hypot(*lengths))
    return largest


def cells(thorough=True, few=False):
    """List what a run may lack, its model and its type; seven of eighteen unless ``thorough``."""
    if thorough:
        return [*itertools.product(LACKING, KINDS, ALLOWED)]
    if few:
        return [("audio on a rank", "groups", "float64")]
    few = [(lacking, "groups", "float64") for lacking in LACKING]
    few += [(lacking, "mcn", "float64") for lacking in LACKING[1:]]
    return [*few, ("something", "frozen", "float64"), ("something", "groups", "float32")]


def write_reference(path, thorough):
    """Train every cell on one process with whole batches."""
    torch.save({cell: run(*cell)[0] for cell in cells(thorough)}, path)


def compare(reference, thorough, few=False):
    """Train every cell in chunks; give the largest difference of each type.

    Unless ``thorough``, float32 is tried in the smallest chunks only, and float64 by turns whole
    and in half a share, or in the other chunks.
    """
    largest = dict.fromkeys(ALLOWED, 0.0)
    halves = itertools.cycle([CHUNKS[::2], CHUNKS[1::2]])
    turns = {cell: next(halves) for cell in cells() if cell[-1] == "float64"}
    for cell, size in itertools.product(cells(thorough, few), CHUNKS):
        if int((size or 0) * BATCH // place()[1]) % GROUP:  # of 8 processes
            continue
        if thorough or size in turns.get(cell, (min(CHUNKS[1:]),)):
            found = difference(run(*cell, size)[0], reference[cell])
            assert found <= ALLOWED[cell[-1]], (*cell, size, found)
            largest[cell[-1]] = max(largest[cell[-1]], found)
    return largest


def compare_with_faults(reference, thorough, few=False):
    """Train every cell while memory runs out at every stage, on the last rank alone and on all.

    Unless ``thorough``, only chunks of half a share are tried, and the first or the last four
    stages by turns.
    """
    rank, world_size = place()
    unreachable = {"between exchanges of the loss"} if world_size == 1 else set()
    halves = itertools.cycle([STAGES[:STEPS], STAGES[-STEPS:]])
    sizes = (None, half()) if thorough else (half(),)
    largest, count = 0.0, 0
    gc.collect()
    gc.freeze()  # of what there is now nothing is to be collected each time memory runs out
    for cell, size, alone in itertools.product(cells(thorough, few), sizes, (True, False)):
        if cell[-1] != "float64" or (alone and world_size == 1):
            continue
        for stages in [next(halves) for _ in range(2 if thorough or few else 1)]:
            here = not alone or rank == world_size - 1
            state, _, faults = run(*cell, size, stages=stages, here=here)
            assert faults == (len(set(stages) - unreachable) if here else 0), (cell, size, stages)
            found = difference(state, reference[cell])
            assert found <= ALLOWED["float64"], (*cell, size, alone, stages, found)
            largest, count = max(largest, found), count + 1
        if alone:
            halves = itertools.cycle([next(halves), next(halves)][::-1])
    return {"runs": count, "largest": largest}


def compare_other_ways(reference, few=False):
    """Let ranks fail at different stages at once, or while they send; without overlap; in bf16."""
    rank, world_size = place()
    cell = ("something", "groups", "float64")
    order = [STAGES[(rank + step) % len(STAGES)] for step in range(STEPS)]
    largest = {
        "elsewhere": difference(run(*cell, half(), stages=order, here=True)[0], reference[cell])
    }
    for overlap in (True,) if few else (True, False):
        here, stages = rank == world_size - 1, [SENDING] * STEPS
        state, _, faults = run(*cell, half(), stages=stages, here=here, overlap=overlap)
        assert faults == (STEPS if here and world_size > 1 else 0)
        largest[f"overlap {overlap}"] = difference(state, reference[cell])
    assert max(largest.values()) <= ALLOWED["float64"], largest
    if few:
        return largest
    rounded = difference(run(*cell, half(), bf16_gradients=True)[0], reference[cell])
    assert 0 < rounded < 0.01 if world_size > 1 else rounded < 1e-12, rounded
    return {**largest, "bf16": rounded}


def check_counts():
    """Two votes a step, and what the ranks send, by the formulas of docs/exact_step.md."""
    ranks, width, size, columns, terms = place()[1], 10, 8, 3, len(TERMS)
    with Collectives() as counted:
        state = run("nothing", "groups", "float64", half())[0]
    trained = sum(t.nbytes for n, t in state.items() if "running" not in n and "num_" not in n)
    share = BATCH // ranks
    votes = 2 * STEPS + 2  # did a signal come, is this epoch the best
    reduced = STEPS * (trained + size * (2 * SoundEncoder.out_dim + terms * (BATCH + 1)))
    expected = {
        "gather": STEPS * (ranks - 1) * share * size * (columns * width + terms),
        "scatter": STEPS * (ranks - 1) * share * size * columns * width,
        "reduce": 2 * (ranks - 1) / ranks * (reduced + votes * ranks * 16),
    }
    assert counted.counts["votes"] == votes, counted.counts
    assert all(math.isclose(counted.sent[kind], n) for kind, n in expected.items()), (
        counted.sent,
        expected,
    )
    return counted.per(STEPS)


def check_error():
    """An error of one rank is its own; the others end with it instead of waiting."""

    class Broken(CombinatorialLoss):
        def __call__(self, *words):
            if rank == world_size - 1:
                raise ValueError("no such thing")
            return super().__call__(*words)

    rank, world_size = place()
    try:
        run("nothing", "groups", "float64", half(), loss=Broken(NAMES, TERMS))
    except (ValueError, CommunicationError) as error:
        own = f"process {world_size - 1} ended with an error; see its message"
        assert str(error) == ("no such thing" if rank == world_size - 1 else own), error
    else:
        raise AssertionError("no error")


def half():
    """Say which part of a share can still be halved."""
    return 0.5 if BATCH // place()[1] > 2 * GROUP else 1.0


def place():
    """Say which rank this is, of how many."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


class LocalNegatives(Loss):
    """The loss of plain DDP: each process compares its own clips, and gradients are averaged."""

    def __init__(self):
        self.loss = CombinatorialLoss(NAMES, TERMS)

    def __call__(self, embeddings, present):
        return plain.combinatorial_loss(self.loss, embeddings, present), {}


def main():
    Accelerator(cpu=True)
    torch.set_num_threads(1)
    collectives.BUCKET_BYTES = BUCKET_BYTES  # of trainers that are made without run()
    rank, world_size = place()
    reference, (thorough, few) = torch.load(sys.argv[1]), (w in sys.argv for w in WORDS)
    result = {"world_size": world_size, "without faults": compare(reference, thorough, few)}
    result["with faults"] = compare_with_faults(reference, thorough, few)
    result["other ways"] = compare_other_ways(reference, few)
    if not thorough:
        result["counts"] = check_counts()
    if not (thorough or few):
        check_error()
    cell = ("nothing", "groups", "float64")
    control = difference(run(*cell, loss=LocalNegatives())[0], reference[cell])
    assert control > 0.01, control
    result["local negatives"] = control
    if rank == 0:
        print(json.dumps(result))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
