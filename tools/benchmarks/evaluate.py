"""Evaluation: embedding clips without gradients, and ranking a gallery."""

import torch

from fusion.evaluation.ranking import ranks_of_pairs
from fusion.models import eao_reference
from tools.benchmarks.measure import compare_times, peak_bytes
from tools.benchmarks.models import make_inputs, make_model

RANKING_WIDTH = 512


def run(arguments, device):
    """Measure both parts."""
    size, davenet = arguments.size, not arguments.no_davenet
    precision = torch.bfloat16 if arguments.precision == "bf16" else None
    model = make_model(size, davenet, device).eval()
    inputs = make_inputs(size, davenet, arguments.batch, arguments.fill, device)
    ways = {
        "plain": lambda: embed(eao_reference.embed, model, inputs, precision),
        "fast": lambda: embed(lambda model, inputs: model(inputs), model, inputs, precision),
    }
    expected, got = ways["plain"](), ways["fast"]()
    seconds, ratios = compare_times(ways, arguments.repeats, device)
    gallery = make_gallery(arguments.gallery)
    rankings = {name: lambda way=way: way(*gallery) for name, way in RANKINGS.items()}
    ranking_seconds, ranking_ratios = compare_times(rankings, arguments.repeats, device)
    cpu = torch.device("cpu")
    memory = {n: peak_bytes(take_memory, n, arguments.gallery, device=cpu) for n in RANKINGS}
    return {
        "size": size,
        "batch": arguments.batch,
        "fill": arguments.fill,
        "seconds": seconds,
        "ratio": ratios["fast"],
        "clips_per_s": {n: arguments.batch / min(s) for n, s in seconds.items()},
        "deviation": max((expected[c] - got[c]).abs().max().item() for c in expected),
        "gallery": arguments.gallery,
        "ranking_seconds": ranking_seconds,
        "ranking_ratio": ranking_ratios["fast"],
        "ranking_peak_MiB": {name: size / 2**20 for name, size in memory.items()},
    }


@torch.no_grad()
def embed(way, model, inputs, precision):
    """Embed one batch."""
    device = inputs["text"].values.device.type
    with torch.autocast(device, precision, enabled=precision is not None):
        return {name: e.float() for name, e in way(model, inputs).items()}


def rank_whole(queries, gallery):
    """Rank all similarities at once, in float32: what ties depends on the processor."""
    queries, gallery = (torch.nn.functional.normalize(x, dim=-1) for x in (queries, gallery))
    similarities = queries @ gallery.T
    own = similarities.diagonal()[:, None]
    ties = (similarities == own).sum(dim=1) - 1
    return 1 + (similarities > own).sum(dim=1) + ties / 2


RANKINGS = {"plain": rank_whole, "fast": ranks_of_pairs}


def make_gallery(size):
    """Draw embeddings that pair up, but not too well."""
    generator = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, size, RANKING_WIDTH, generator=generator)
    return x, x + 2 * noise


def take_memory(start, name, size):
    """Rank once in a process of its own, see ``peak_bytes``."""
    gallery = make_gallery(size)
    RANKINGS[name](*make_gallery(8))
    start()
    RANKINGS[name](*gallery)
