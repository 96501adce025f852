"""Contrastive losses: whole similarity matrices compared with tiles."""

import itertools

import torch
import torch.nn.functional as F

from fusion.losses import MCNLoss, nce
from tests.losses import plain
from tools.benchmarks.measure import compare_times, deviation, peak_bytes

CLUSTERS, MARGIN = 256, 0.001


def whole_nce(x, y):
    """The definition."""
    return plain.nce(x, y, 0.05)


def whole_mcn(*sides):
    """Pairs and clusters of MCN as published: B x B similarities, K x B memberships."""
    pairs = itertools.combinations(sides, 2)
    loss = sum(plain.mms_dot(x, y, MARGIN) for x, y in pairs)
    with torch.no_grad():
        rows = sum(sides) / len(sides)
        places = torch.arange(CLUSTERS, device=rows.device)
        centroids = rows[places * len(rows) // CLUSTERS]
        for _ in range(100):
            labels = (F.normalize(rows, dim=1) @ F.normalize(centroids, dim=1).T).argmax(dim=1)
            member = (labels[None].expand(CLUSTERS, -1) == places[:, None]).to(rows.dtype)
            sizes = member.sum(dim=1, keepdim=True)
            assert sizes.all(), "an empty cluster, which the two ways treat differently"
            previous, centroids = centroids, member @ rows / sizes
            if (centroids - previous).square().sum() <= 1e-4:
                break
    own = F.one_hot(labels, CLUSTERS).to(rows.dtype) * MARGIN
    return loss + sum(F.cross_entropy(x @ centroids.T - own, labels) for x in sides) / len(sides)


def tiled_mcn(*sides):
    """The same by the loss used in training."""
    loss = MCNLoss(("text", "video", "audio"), MARGIN, CLUSTERS, reconstruction_weight=0)
    everywhere = torch.ones(len(sides[0]), dtype=torch.bool, device=sides[0].device)
    present = dict.fromkeys(("text", "video", "audio"), everywhere)
    return loss(dict(zip("tva", sides, strict=True)), present)[0]


WAYS = {
    "nce": {"plain": whole_nce, "fast": nce},
    "mcn": {"plain": whole_mcn, "fast": tiled_mcn},
}


def run(arguments, device):
    """Measure forward and backward pass of one loss."""
    kind, sizes = arguments.kind, (arguments.batch, arguments.width, device)
    sides = make_sides(kind, *sizes)
    ways = {name: lambda way=way: step(way, sides) for name, way in WAYS[kind].items()}
    results = {name: way() for name, way in ways.items()}
    seconds, ratios = compare_times(ways, arguments.repeats, device)
    memory = {name: peak_bytes(take_memory, kind, name, *sizes, device=device) for name in ways}
    plain_value, fast_value = (results[name].pop("value") for name in ("plain", "fast"))
    return {
        "kind": kind,
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


def make_sides(kind, batch, width, device):
    """Draw embeddings that are correlated, but not too much; those of MCN are short."""
    generator = torch.Generator().manual_seed(0)
    x, *noise = torch.randn(2 if kind == "nce" else 3, batch, width, generator=generator)
    sides = [x, *(x + 2 * more for more in noise)]
    scale = 1.0 if kind == "nce" else width**-0.5
    return [(scale * side).to(device).requires_grad_() for side in sides]


def step(way, sides):
    """Compute a loss and its gradients."""
    value = way(*sides)
    gradients = torch.autograd.grad(value, sides)
    return {"value": value.detach(), **{str(i): g for i, g in enumerate(gradients)}}


def take_memory(start, kind, name, batch, width, device):
    """Do one step in a process of its own, see ``peak_bytes``."""
    sides = make_sides(kind, batch, width, device)
    few = make_sides(kind, 8 if kind == "nce" else 8 * CLUSTERS, width, device)
    step(WAYS[kind][name], few)  # warm up
    start()
    step(WAYS[kind][name], sides)
