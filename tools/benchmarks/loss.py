"""The contrastive loss: whole similarity matrices against tiles."""

import torch

from fusion.losses import nce
from tests import plain
from tools.benchmarks.measure import compare_times, deviation, peak_bytes


def whole_nce(x, y):
    """The definition."""
    return plain.nce(x, y, 0.05)


WAYS = {"plain": whole_nce, "fast": nce}


def run(arguments, device):
    """Measure forward and backward pass of one term."""
    x, y = make_pair(arguments.batch, arguments.width, device)
    ways = {name: lambda way=way: step(way, x, y) for name, way in WAYS.items()}
    results = {name: ways[name]() for name in WAYS}
    seconds, ratios = compare_times(ways, arguments.repeats, device)
    memory = {
        name: peak_bytes(take_memory, name, arguments.batch, arguments.width, device, device=device)
        for name in WAYS
    }
    plain_value, fast_value = (results[name].pop("value") for name in ("plain", "fast"))
    return {
        "batch": arguments.batch,
        "width": arguments.width,
        "seconds": seconds,
        "ratio": ratios["fast"],
        "peak_MiB": {n: None if b is None else b / 2**20 for n, b in memory.items()},
        "memory_ratio": memory["plain"] / memory["fast"] if all(memory.values()) else None,
        "deviation": {
            "value": abs((fast_value - plain_value) / max(plain_value, 1e-9)).item(),
            "gradients": deviation(results["fast"], results["plain"]),
        },
    }


def make_pair(batch, width, device):
    """Draw embeddings that pair up, but not too well."""
    generator = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, batch, width, generator=generator)
    return tuple(t.to(device).requires_grad_() for t in (x, x + 2 * noise))


def step(way, x, y):
    """Compute a loss and its gradients."""
    value = way(x, y)
    gradients = torch.autograd.grad(value, (x, y))
    return {"value": value.detach(), "x": gradients[0], "y": gradients[1]}


def take_memory(start, name, batch, width, device):
    """Do one step in a process of its own, see ``peak_bytes``."""
    x, y = make_pair(batch, width, device)
    step(WAYS[name], *make_pair(8, width, device))  # what the first call loads does not count
    start()
    step(WAYS[name], x, y)
