"""Training on 1, 2, 4 and 8 processes: throughput, what is sent, what is waited for.

With more processes than cores the throughput says little; the counts say the same as anywhere.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from fusion.data.datasets.dataset import collate
from fusion.training.launch import end_processes, make_accelerator
from fusion.training.settings import Settings
from fusion.training.trainer import Trainer
from tools.benchmarks.collectives import Collectives
from tools.benchmarks.models import make_inputs, make_loss, make_model

GROUP = 2  # clips of a BatchNorm group: any number of processes divides the batch
SECONDS = ("reading", "communication", "waiting")


def run(arguments, device):
    """Start each number of processes, one after the other."""
    processes = sorted({1, *arguments.processes})  # one process is what others are compared to
    results = {count: start(arguments, count) for count in processes}
    alone = results[1]["clips_per_s"]
    for count, result in results.items():
        result["efficiency"] = result["clips_per_s"] / (count * alone)
    return {
        "size": arguments.size,
        "batch": arguments.batch,
        "chunk": arguments.chunk,
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "processes": results,
    }


def start(arguments, count):
    """Train on so many processes of this machine; give what the first one measured."""
    words = [__file__, "--size", arguments.size]
    for name in ("batch", "repeats", "chunk"):
        if (value := getattr(arguments, name)) is not None:
            words += [f"--{name}", str(value)]
    for name in ("plain", "bf16_gradients"):
        words += [f"--{name.replace('_', '-')}"] if getattr(arguments, name) else []
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
    command = [sys.executable, *(launcher if count > 1 else ()), *words]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"{count} processes ended with {done.returncode}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


class Clips(list):
    """A batch of clips, the same in every step."""

    group = 1

    def set_epoch(self, seed):
        """Nothing is drawn at random."""

    def end_epoch(self):
        """Nothing to report."""


def make_trainer(arguments, accelerator):
    """Build a run of some steps."""
    model = make_model(arguments.size, True, accelerator.device, batchnorm_group=GROUP)
    inputs = make_inputs(arguments.size, True, arguments.batch, 1.0, "cpu")
    items = [
        {"id": str(i), **{name: tokens.part(i, i + 1).values for name, tokens in inputs.items()}}
        for i in range(arguments.batch)
    ]
    further = {"overlap": not arguments.plain, "bf16_gradients": arguments.bf16_gradients}
    settings = Settings(
        epochs=arguments.repeats + 1,
        batch_size=arguments.batch,
        learning_rate=1e-4,
        chunk_size=arguments.chunk or arguments.batch // accelerator.num_processes,
        log_every=1,
        **{name: value for name, value in further.items() if hasattr(Settings, name)},
    )
    loss = make_loss()
    return Trainer(
        model,
        loss,
        Clips(items),
        collate,
        settings,
        seed=0,
        accelerator=accelerator,
        arguments=lambda clips: {"skip_incomplete": True},
    )


def measure(arguments):
    """Take one step to warm up, then those that count, on this process."""
    accelerator = make_accelerator("no", None)
    trainer = make_trainer(arguments, accelerator)
    trainer.model.train()
    take(trainer, 1)
    shares, counted = {}, None
    if accelerator.num_processes > 1:
        torch.distributed.barrier()
        with Collectives() as counted:
            elapsed, shares = take(trainer, arguments.repeats)
    else:
        elapsed, shares = take(trainer, arguments.repeats)
    result = {
        "clips_per_s": arguments.repeats * arguments.batch / elapsed,
        "seconds_per_step": elapsed / arguments.repeats,
        "shares": {name: seconds / elapsed for name, seconds in shares.items()},
        **(counted.per(arguments.repeats) if counted else {}),
    }
    result["shares"]["arithmetic"] = 1 - sum(result["shares"].values())
    if accelerator.is_main_process:
        print(json.dumps(result))
    del trainer
    end_processes(accelerator)


def take(trainer, steps):
    """Take steps, each in an epoch of its own; give seconds, and those of each kind of waiting."""
    begun, seconds = time.perf_counter(), dict.fromkeys(SECONDS, 0.0)
    for _ in range(steps):
        for batch in trainer.rest_of_epoch():
            seconds["reading"] += trainer.reading.take()
            trainer.take_step(batch)[0].item()
        trainer.epoch += 1
    try:
        from fusion.distributed import times
    except ImportError:  # an older version, of which only the counts are wanted
        return time.perf_counter() - begun, seconds
    seconds |= {kind: times.take(kind) for kind in SECONDS[1:]}
    return time.perf_counter() - begun, seconds


def main():
    """Measure on this process, which :func:`start` has started."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size")
    for name in ("batch", "repeats", "chunk"):
        parser.add_argument(f"--{name}", type=int)
    for name in ("plain", "bf16-gradients"):
        parser.add_argument(f"--{name}", action="store_true")
    measure(parser.parse_args())


if __name__ == "__main__":
    main()
