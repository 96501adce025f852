"""Steps whose batch does not fit into memory: what is left of it, and that the result is the same.

After a step to warm up the next one tries the whole batch, without the probe that would choose a
chunk beforehand, so memory really runs out where the batch is large enough.
"""

import math
import multiprocessing
import time
import types

import torch

from fusion.training.launch import make_accelerator
from tools.benchmarks.measure import finish, limit_memory, product_rate
from tools.benchmarks.scaling import make_trainer

GROUP = 32  # clips of a BatchNorm group; it divides 16,384
STEPS = 3  # one to warm up, in the smallest chunks; one that finds what fits; one that takes it
WAYS = ("whole", "probe", "small")  # begins with all clips; after a probe; few clips at a time


def run(arguments, device):
    """Take the same steps beginning with the whole batch, after a probe, and in small chunks."""
    if arguments.batch % GROUP:
        raise ValueError(f"--batch must be a multiple of {GROUP}; got {arguments.batch}")
    context, found = multiprocessing.get_context("spawn"), {}
    for way in WAYS:  # each in a process of its own, that has no memory left over from another
        with context.Pool(1) as pool:
            found[way] = pool.apply(take_steps, (arguments, way, device))
    whole, small = found["whole"], found["small"]
    result = {name: getattr(arguments, name) for name in ("size", "batch", "precision")}
    if device.type == "cuda":
        result["product_TFLOP_per_s"] = product_rate(device) / 1e12
        result["memory_GiB"] = torch.cuda.mem_get_info()[1] / 2**30
    return result | {
        "ran_out": whole["chunks"][-1] < arguments.batch,
        "ways": found,
        "deviation": max(
            abs(a - b) / abs(b) for a, b in zip(whole["losses"], small["losses"], strict=True)
        ),
    }


def take_steps(arguments, way, device):
    """Take some steps from the same weights, on the same clips."""
    arguments = types.SimpleNamespace(**vars(arguments), plain=False, bf16_gradients=False)
    arguments.repeats, arguments.chunk = STEPS - 1, GROUP if way == "small" else arguments.batch
    torch.manual_seed(0)  # draws biases
    accelerator = make_accelerator(arguments.precision, None)
    trainer = make_trainer(arguments, accelerator, GROUP)
    trainer.found_chunk, trainer.log = True, Said()
    trainer.chunk.fits = 1.0  # one feature, so the smallest chunks are taken
    trainer.model.train()
    limited = way == "whole" and arguments.limit_mib
    losses, seconds, chunks = [], [], []
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for step in range(STEPS):
        for batch in trainer.rest_of_epoch():
            if step == 1:
                trainer.chunk.fits, trainer.found_chunk = math.inf, way != "probe"
            if step == 1 and limited:
                limit_memory(arguments.limit_mib << 20, device.type == "cuda")
            begun = time.perf_counter()
            losses.append(trainer.take_step(batch)[0].item())
            finish(device)
            seconds.append(time.perf_counter() - begun)
            chunks.append(trainer.chunk.size)
        trainer.epoch += 1
    found = {"losses": losses, "seconds": seconds, "chunks": chunks, "said": trainer.log.lines}
    if device.type == "cuda":
        found["peak_GiB"] = torch.cuda.max_memory_allocated() / 2**30
    return found


class Said:
    """A log that keeps what is said."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        """Keep a line."""
        self.lines.append(line)

    def chunks(self, epoch, step, sizes):
        """Do nothing: the chunk of every step is kept anyway."""
