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
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from fusion.config import ConfigError
from fusion.plan.work import Rates, rates_of

LONG = 1.0  # seconds
SUMS, LARGE_SUMS = 100, 10  # all-reduces that are timed
LARGE = 1_000_000  # numbers of the large ones


class Together(NamedTuple):
    """What each of several processes does, in seconds of the clock."""

    rates: Rates
    latency: float  # seconds of a message between two of them
    link: float  # bytes a second that one sends


def measure_together(processes: int, threads: int = 1, long: float = LONG) -> Together:
    """Measure so many processes at once; takes some seconds, most of it to start.

    Args:
        processes: two or more.
        threads: of each.
        long: seconds of each of three kinds of work.

    Raises:
        ConfigError: they cannot reach one another, say.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "found"
        words = (processes, str(place), threads, long)
        try:
            torch.multiprocessing.spawn(_measure, words, nprocs=processes)
        except (ProcessRaisedException, ProcessExitedException) as error:
            last = str(error).strip().splitlines()[-1]
            raise ConfigError(
                f"--like: {processes} processes of this machine could not be measured together"
                f" ({last}); plan without --like, or name a run on a GPU"
            ) from None
        rates, small, large = json.loads(place.read_text())
    return together_of(processes, Rates(*rates), small, large)


def together_of(processes: int, rates: Rates, small: float, large: float) -> Together:
    """Take latency and bytes a second from the seconds of two all-reduces.

    An all-reduce is two exchanges, see ``fusion.plan.machine.Machine.exchange``.
    """
    latency = small / 2 / math.ceil(math.log2(processes))
    sent = 2 * 4 * LARGE * (processes - 1) / processes
    return Together(rates, latency, sent / max(large - small, 0.01 * large))


def _measure(rank: int, processes: int, place: str, threads: int, long: float) -> None:
    torch.set_num_threads(threads)
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
