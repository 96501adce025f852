"""Training on 1, 2, 4 and 8 processes: throughput, what is sent, what is waited for.

Every process computes with one thread. With more processes than cores they take turns, and clips/s
cannot grow. What remains to be compared there is the CPU time of a step, of all processes
together: what it grows by is work that one process does not have. Counts are as anywhere.
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
from fusion.report.layout import align
from fusion.training.launch import end_processes, make_accelerator
from fusion.training.settings import Settings
from fusion.training.trainer import Trainer
from tools.benchmarks.collectives import Collectives
from tools.benchmarks.models import make_inputs, make_loss, make_model

GROUP = 2  # clips of a BatchNorm group: any number of processes divides the batch
SECONDS = ("reading", "communication", "waiting")
KINDS = ("reading", "arithmetic", "communication", "waiting")  # shares of a step


def run(arguments, device):
    """Start each number of processes, one after the other."""
    processes = sorted({1, *arguments.processes})  # one process is what others are compared to
    results = {count: start(arguments, count) for count in processes}
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    alone = results[1]
    for count, result in results.items():
        result["speedup"] = result["clips_per_s"] / alone["clips_per_s"]
        result["efficiency"] = result["speedup"] / count
        result["efficiency_of_cores"] = result["speedup"] / min(count, cores)
        result["cpu_ratio"] = alone["cpu_s_per_step"] / result["cpu_s_per_step"]
    print("\n".join(table(results)))
    if max(results) > cores:
        print(
            f"{cores} cores: clips/s of more than {cores} processes are bounded by them; there"
            " compare CPU seconds"
        )
    found = {name: getattr(arguments, name) for name in ("size", "batch", "chunk")}
    return found | {"cores": cores, "processes": results}


def table(results):
    """Write one line for each number of processes; bytes, counts and shares are of one process."""
    ratios = ["clips/s", "of one", "per process", "per core", "CPU s a step", "one / it"]
    lines = [["processes", *ratios, "collectives", "votes", "waits", "MiB sent", *KINDS]]
    for count, found in results.items():
        numbers = [found[name] for name in ("clips_per_s", "speedup")]
        numbers += [found[name] for name in ("efficiency", "efficiency_of_cores")]
        numbers += [found[name] for name in ("cpu_s_per_step", "cpu_ratio")]
        counts = [f"{found[name]:g}" for name in ("collectives", "votes", "waits")]
        shares = [f"{100 * found['shares'][name]:.0f} %" for name in KINDS]
        lines.append([str(count), *(f"{number:.3g}" for number in numbers), *counts])
        lines[-1] += [f"{found['sent_MiB']:.2f}", *shares]
    return align(lines)


def start(arguments, count):
    """Train on so many processes of this machine; give what they measured."""
    words = [__file__, "--size", arguments.size]
    for name in ("batch", "repeats", "chunk"):
        if (value := getattr(arguments, name)) is not None:
            words += [f"--{name}", str(value)]
    for name in ("plain", "bf16_gradients"):
        words += [f"--{name.replace('_', '-')}"] if getattr(arguments, name) else []
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
    command = [sys.executable, *(launcher if count > 1 else ()), *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # torchrun sets this, for several alone
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
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


def make_trainer(arguments, accelerator, group=GROUP):
    """Build a run of some steps."""
    model = make_model(arguments.size, True, accelerator.device, batchnorm_group=group)
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
    counted = Collectives()
    if accelerator.num_processes > 1:
        torch.distributed.barrier()
    with counted:
        elapsed, cpu, shares = take(trainer, arguments.repeats)
    shares["arithmetic"] = elapsed - sum(shares.values())
    cpu, *shares = over_ranks([cpu, *(shares[name] / elapsed for name in KINDS)])
    result = {
        "clips_per_s": arguments.repeats * arguments.batch / elapsed,
        "seconds_per_step": elapsed / arguments.repeats,
        "cpu_s_per_step": cpu * accelerator.num_processes / arguments.repeats,
        "shares": dict(zip(KINDS, shares, strict=True)),
        **counted.per(arguments.repeats),
    }
    if accelerator.is_main_process:
        print(json.dumps(result))
    del trainer
    end_processes(accelerator)


def over_ranks(numbers):
    """Average numbers over all processes."""
    mean = torch.tensor(numbers, dtype=torch.float64)
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(mean)
        mean /= torch.distributed.get_world_size()
    return mean.tolist()


def take(trainer, steps):
    """Take steps, each in an epoch of its own.

    Returns:
        Seconds by the clock, CPU seconds of this process, and seconds of each kind of waiting.
    """
    begun, cpu, seconds = time.perf_counter(), time.process_time(), dict.fromkeys(SECONDS, 0.0)
    for _ in range(steps):
        for batch in trainer.rest_of_epoch():
            seconds["reading"] += trainer.reading.take()
            trainer.take_step(batch)[0].item()
        trainer.epoch += 1
    elapsed, cpu = time.perf_counter() - begun, time.process_time() - cpu
    try:
        from fusion.distributed import times
    except ImportError:  # an older version, of which only the counts are wanted
        return elapsed, cpu, seconds
    seconds |= {kind: times.take(kind) for kind in SECONDS[1:]}
    return elapsed, cpu, seconds


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
