"""How to measure: time, memory, arithmetic and deviation of a plain and a fast way."""

import math
import multiprocessing
import statistics
import time
from pathlib import Path

import torch
from tqdm import tqdm

from fusion.plan.count import count_flop, saved_bytes
from fusion.process import memory_at_peak, memory_now

__all__ = ["compare_times", "count_flop", "deviation", "finish", "peak_bytes", "saved_bytes"]


def compare_times(ways, repeats, device):
    """Time some ways of doing one thing in turn, so that none has the machine to itself.

    Args:
        ways: functions without arguments, by name; ``plain`` is what the others are compared to.
        repeats: rounds that count; one more goes before them.
        device: whose work must be finished before the clock stops.

    Returns:
        For each way its seconds in each round; for each but ``plain`` the median over the rounds
        of the seconds of ``plain`` divided by its own.
    """
    seconds = {name: [] for name in ways}
    for turn in tqdm(range(repeats + 1), desc="timing", unit="round", leave=False):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            finish(device)
            if turn:
                seconds[name].append(time.perf_counter() - start)
    ratios = {
        name: statistics.median(p / s for p, s in zip(seconds["plain"], own, strict=True))
        for name, own in seconds.items()
        if name != "plain"
    }
    return seconds, ratios


def finish(device):
    """Wait until a GPU has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def peak_bytes(function, *arguments, device):
    """Measure the memory that a function takes at its peak.

    On a GPU that is all there is, weights and inputs too. On a CPU it is without what was there
    before: the function runs in a process of its own and calls ``start()`` once its inputs are
    made; it must be ``function(start, *arguments)`` and importable.

    Returns:
        Bytes; None if the memory of the GPU was not enough.
    """
    if device.type == "cuda":
        return _peak_on_gpu(function, arguments)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_peak_in_process, args=(queue, function, arguments))
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{function.__name__}{arguments} ended with {process.exitcode}")
    return queue.get()


def _peak_on_gpu(function, arguments):
    def start():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()

    try:
        function(start, *arguments)
    except torch.OutOfMemoryError:
        return None
    return torch.cuda.max_memory_allocated()


def _peak_in_process(queue, function, arguments):
    before = []
    function(lambda: before.append(memory_now()), *arguments)
    queue.put(memory_at_peak() - before[0])


def limit_memory(extra, cuda):
    """Let the process have this many bytes more than it has now, from here on to its end."""
    if cuda:
        everything = torch.cuda.mem_get_info()[1]
        torch.cuda.empty_cache()
        fraction = (torch.cuda.memory_reserved() + extra) / everything
        torch.cuda.set_per_process_memory_fraction(fraction)
    else:
        import resource  # not on Windows

        # not RLIMIT_AS: addresses a thread's allocator reserves, and never writes, would count
        pages = int(Path("/proc/self/statm").read_text().split()[5])  # data and stack
        most = pages * resource.getpagesize() + extra
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def deviation(ours, theirs):
    """Compare two sets of tensors by the length of their difference, in units of their own length.

    Returns:
        ``all``, the sets as one long vector each; ``worst``, the tensor that differs most. Tensors
        without any extent are left out there.
    """
    differences = {k: (ours[k] - theirs[k]).double().norm().item() for k in theirs}
    lengths = {k: theirs[k].double().norm().item() for k in theirs}
    return {
        "all": math.hypot(*differences.values()) / max(math.hypot(*lengths.values()), 1e-9),
        "worst": max((differences[k] / lengths[k] for k in theirs if lengths[k] > 1e-9), default=0),
    }


def product_rate(device, size=8192, repeats=20, dtype=torch.bfloat16):
    """Measure the rate of matrix products, in FLOP/s."""
    x, y = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    for _ in range(3):
        x @ y
    finish(device)
    start = time.perf_counter()
    for _ in range(repeats):
        x @ y
    finish(device)
    return 2 * size**3 * repeats / (time.perf_counter() - start)
