"""What processes of one CPU do while all of them work, and how fast they exchange tensors.

Two processes on two cores are not twice as fast as one, as they share the memory; and eight on two
cores also wait for one another. So it is measured with as many as a plan is for.
"""

from __future__ import annotations

import functools
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import distributed as dist

from fusion.plan.work import Rates, rates_of

LONG = 1.0  # seconds
SUMS, LARGE_SUMS = 100, 10  # all-reduces that are timed
LARGE = 1_000_000  # numbers of the large ones


class Together(NamedTuple):
    """What each of several processes does, in seconds of the clock."""

    rates: Rates
    latency: float  # seconds of a message between two of them
    link: float  # bytes a second that one sends


def measure_together(processes: int, long: float = LONG) -> Together:
    """Measure so many processes of one thread at once; takes some seconds, most of it to start.

    Args:
        processes: two or more.
        long: seconds of each of three kinds of work.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "found"
        torch.multiprocessing.spawn(_measure, (processes, str(place), long), nprocs=processes)
        rates, small, large = json.loads(place.read_text())
    return together_of(processes, Rates(*rates), small, large)


def together_of(processes: int, rates: Rates, small: float, large: float) -> Together:
    """Take latency and bytes a second from the seconds of two all-reduces.

    An all-reduce is two exchanges, see ``fusion.plan.machine.Machine.exchange``.
    """
    latency = small / 2 / math.ceil(math.log2(processes))
    sent = 2 * 4 * LARGE * (processes - 1) / processes
    return Together(rates, latency, sent / max(large - small, 0.01 * large))


def _measure(rank: int, processes: int, place: str, long: float) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{place}-store", rank=rank, world_size=processes
    )
    found: list[tuple[tuple[float, ...], float, float]] = [((), 0.0, 0.0)] * processes
    rates = rates_of(functools.partial(_seconds, long=long))
    own = (tuple(rates), _sum(1, SUMS), _sum(LARGE, LARGE_SUMS))
    dist.all_gather_object(found, own)
    if rank == 0:
        all_rates, small, large = zip(*found, strict=True)
        each = [statistics.median(kind) for kind in zip(*all_rates, strict=True)]
        sums = [statistics.median(small), statistics.median(large)]
        Path(place).write_text(json.dumps([each, *sums]))
    dist.barrier()
    dist.destroy_process_group()


def _seconds(function: Callable[[], object], long: float) -> float:
    """Return the seconds of a call while all processes do the same."""
    function()
    dist.barrier()
    begun, calls = time.perf_counter(), 0
    while (passed := time.perf_counter() - begun) < long:
        function()
        calls += 1
    return passed / calls


def _sum(size: int, times: int) -> float:
    """Return the seconds of an all-reduce of so many numbers."""
    numbers = torch.zeros(size)
    dist.all_reduce(numbers)
    begun = time.perf_counter()
    for _ in range(times):
        dist.all_reduce(numbers)
    return (time.perf_counter() - begun) / times
