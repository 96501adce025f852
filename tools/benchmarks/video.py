"""TSM against the network of single frames and against networks with convolutions over time.

For 4, 8 and 16 frames: arithmetic of a clip, parameters, bytes of the gradient that ranks exchange,
bytes kept for the backward pass, and the time of a training step, measured in turn. The three
guidelines of arXiv:1910.00932 in one table: less arithmetic, fewer frames, a smaller gradient.
"""

import statistics

import torch
import torch.nn.functional as F

from fusion.config import load_config
from fusion.data.demo.orders import CLASSES as ORDER_CLASSES
from fusion.models.tsm import TSM
from fusion.report.layout import align
from tools.benchmarks.inflated import KINDS, Inflated
from tools.benchmarks.measure import compare_times, count_flop, saved_bytes

FRAMES = (4, 8, 16)
CLASSES = 400
ORDERS = "orders"  # the network of configs/tsm.yaml
PAPER = {"network": "resnet50", "frames": 8, "size": 224}
HEAD = ["frames", "network", "GFLOP/clip", "M parameters", "gradient MiB", "in bf16"]
HEAD += ["kept MiB/clip", "clips/s", "TSM = 1"]


def run(arguments, device):
    """Train on frames of noise, count on the meta device, and print the table."""
    counted = count_paper()
    network, classes = arguments.network, CLASSES
    if network == ORDERS:
        network, classes = load_config("tsm")["model"]["network"], len(ORDER_CLASSES)
    rows = {}
    for frames in FRAMES:
        found = compare_networks(frames, network, classes, arguments, device)
        rows |= {f"{frames} frames, {name}": row for name, row in found.items()}
    print("\n".join(align(table(rows))))
    return {"network": arguments.network, "size": arguments.size, "rows": rows, "paper": counted}


def networks(network, classes):
    """Make the networks that are compared, by name; ``plain`` sees single frames."""
    return {
        "plain": TSM(network, classes, shift=False),
        "tsm": TSM(network, classes),
        **{f"3d, {kind}": Inflated(network, classes, kind) for kind in KINDS},
    }


def count_paper():
    """Count parameters and arithmetic of the paper's network, without computing anything."""
    with torch.device("meta"):
        model = TSM(PAPER["network"], CLASSES)
        clip = torch.empty(1, PAPER["frames"], 3, PAPER["size"], PAPER["size"])
    return PAPER | {
        "parameters": sum(p.numel() for p in model.parameters()),
        "gflop_per_clip": forward_flop(model, clip) / 1e9,
    }


def forward_flop(model, clips):
    """Count the operations of a forward pass, 2 for each multiplication with its addition."""
    training = model.training
    with torch.no_grad():
        flop = count_flop(lambda: model.eval()(clips))
    model.train(training)
    return flop


def compare_networks(frames, network, classes, arguments, device):
    """Time a training step of each network, and count what it needs."""
    shape = (frames, 3, arguments.size, arguments.size)
    clips = torch.randn(arguments.batch, *shape, device=device)
    labels = torch.zeros(arguments.batch, dtype=torch.int64, device=device)
    models = {name: model.to(device) for name, model in networks(network, classes).items()}

    def step(model):
        model.zero_grad()
        F.cross_entropy(model(clips), labels).backward()

    ways = {name: lambda model=model: step(model) for name, model in models.items()}
    seconds, ratios = compare_times(ways, arguments.repeats, device)
    return {
        name: {
            "gflop_per_clip": forward_flop(model, clips) / 1e9 / arguments.batch,
            "parameters": (count := sum(p.numel() for p in model.parameters())),
            "gradient_bytes": {"fp32": 4 * count, "bf16": 2 * count},
            "kept_bytes_per_clip": kept_bytes(model, shape),
            "step_seconds": seconds[name],
            "clips_per_second": arguments.batch / statistics.median(seconds[name]),
            "throughput_by_tsm": ratios.get(name, 1.0) / ratios["tsm"],
        }
        for name, model in models.items()
    }


def kept_bytes(model, shape):
    """Count what a training step keeps of a clip for its backward pass, in fp32.

    It is the slope from two clips to three: what does not grow with the batch is not counted.
    """
    shapes = [(number, *shape) for number in (2, 3)]
    device = next(model.parameters()).device
    sizes = [
        saved_bytes(lambda s=s: model(torch.zeros(s, device=device)), model.parameters())
        for s in shapes
    ]
    return sizes[1] - sizes[0]


def table(rows):
    """Lay the rows out for the terminal."""
    lines = [HEAD]
    for name, row in rows.items():
        frames, _, network = name.partition(" frames, ")
        lines.append(
            [
                frames,
                network,
                f"{row['gflop_per_clip']:.3g}",
                f"{row['parameters'] / 1e6:.2f}",
                f"{row['gradient_bytes']['fp32'] / 2**20:.1f}",
                f"{row['gradient_bytes']['bf16'] / 2**20:.1f}",
                f"{row['kept_bytes_per_clip'] / 2**20:.1f}",
                f"{row['clips_per_second']:.3g}",
                f"{row['throughput_by_tsm']:.2f}",
            ]
        )
    return lines
