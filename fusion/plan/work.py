"""How long a processor takes for one model, measured by what it takes for another.

Operations alone do not say it: a narrow layer moves more bytes for each of its operations than a
wide one, and a small tensor takes the time of a call. So three things are counted, and the rates of
a processor for the three are measured.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

NO_WORK = ("aten.view", "aten._unsafe_view", "aten.empty", "aten.new_empty", "aten.detach")
SIDE = 512  # of the matrices whose product is timed
LARGE = 4_000_000  # numbers that are copied
SMALL, CHAIN = 16, 30  # width and number of layers that are little more than calls
ROUNDS, CALLS = 9, 5  # of each, of which the median counts


class Rates(NamedTuple):
    """What a processor does."""

    products: float  # operations a second in matrix products
    moved: float  # bytes a second
    call: float  # seconds of a call on a tensor without size


class Calls(TorchDispatchMode):
    """Counts the calls within its ``with`` block, and the bytes they read and write.

    Attributes:
        count: calls, without those that only look at a tensor in another way.
        moved: bytes of all tensors that they are given and give.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count, self.moved = 0, 0

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), words: Any = None
    ) -> Any:
        """Count a call."""
        found = function(*arguments, **(words or {}))
        if not function.is_view and not str(function).startswith(NO_WORK):
            tensors = [x for x in tree_leaves((arguments, words, found)) if isinstance(x, Tensor)]
            self.count += 1
            self.moved += _bytes(*tensors)
        return found


class Attention(TorchFunctionMode):
    """Counts attention as one call each way, as processors have it; without data it is many."""

    def __init__(self, calls: Calls) -> None:
        super().__init__()
        self.calls = calls

    def __torch_function__(
        self, function: Any, types: Any, arguments: Any = (), words: Any = None
    ) -> Any:
        """Replace attention by one call without a value, where there are no data."""
        if function is F.scaled_dot_product_attention and arguments[0].is_meta:
            return _OneCall.apply(*arguments[:3], self.calls)
        return function(*arguments, **(words or {}))


class _OneCall(torch.autograd.Function):
    """Attention that has a shape and a gradient, both without values, and is counted as a call."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, calls: Calls) -> Tensor:
        ctx.sides, ctx.calls = (q, k, v), calls
        calls.count, calls.moved = calls.count + 1, calls.moved + _bytes(q, k, v, q)
        return q.new_empty(*q.shape[:-1], v.shape[-1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        calls, sides = ctx.calls, ctx.sides
        calls.count, calls.moved = calls.count + 1, calls.moved + 2 * _bytes(*sides, sides[0])
        return *(torch.empty_like(side) for side in sides), None


def _bytes(*tensors: Tensor) -> int:
    return sum(tensor.numel() * tensor.itemsize for tensor in tensors)


def count_calls(function: Callable[[], object]) -> tuple[int, int]:
    """Return how many calls a function makes, and the bytes that they move."""
    with Calls() as calls, Attention(calls):
        function()
    return calls.count, calls.moved


def measure_rates(threads: int = 1) -> Rates:
    """Measure the CPU with so many threads of one process, in a second or two."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    # The CPU seconds of one thread do not depend on what else runs; those of several add up.
    clock = time.process_time if threads == 1 else time.perf_counter
    try:
        return rates_of(functools.partial(_seconds, clock=clock))
    finally:
        torch.set_num_threads(before)


def rates_of(seconds: Callable[[Callable[[], object]], float]) -> Rates:
    """Measure three kinds of work; ``seconds`` says how long a call of a function takes."""
    x, y = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
    source, target = torch.randn(LARGE), torch.empty(LARGE)
    layers = [nn.Sequential(nn.Linear(SMALL, SMALL), nn.LayerNorm(SMALL), nn.GELU())] * CHAIN
    chain, small = nn.Sequential(*layers), torch.randn(SMALL, SMALL)

    def step() -> None:  # of many layers with hardly any work
        chain(small).sum().backward()

    products = 2 * SIDE**3 / seconds(lambda: x @ y)
    moved = 2 * source.nbytes / seconds(lambda: target.copy_(source))
    return Rates(products, moved, seconds(step) / count_calls(step)[0])


def _seconds(function: Callable[[], object], clock: Callable[[], float]) -> float:
    """Return the seconds of a call, the median of some rounds."""
    rounds = []
    for _ in range(ROUNDS):
        begun = clock()
        for _ in range(CALLS):
            function()
        rounds.append((clock() - begun) / CALLS)
    return sorted(rounds)[ROUNDS // 2]
