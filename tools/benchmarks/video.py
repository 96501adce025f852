"""Reading clips of films, and TSM against the network of single frames.

Reading: clips per second of CPU time, decoding only what a clip needs against every frame before
it. Networks: 4, 8 and 16 frames, TSM against the same network without shift: arithmetic, time of a
training step, bytes of its gradient. (A network with three-dimensional convolutions is not here.)
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from fusion.data.labelled.frame_sampling import uniform_test
from fusion.data.media.encode import write_clip
from fusion.data.media.shown import Size, read_shown
from fusion.models.tsm import TSM
from tools.benchmarks.measure import compare_times, count_flop

FPS = 25
SIZES = {"small": (120, 160), "medium": (240, 320), "large": (480, 640)}  # height, width
FRAMES = (4, 8, 16)
CLASSES = 400


def run(arguments, device):
    """Make films, read clips of them in both ways, then train on frames of noise."""
    result = {"seconds_of_film": arguments.seconds, "reading": {}, "networks": {}}
    with tempfile.TemporaryDirectory() as folder:
        for name, size in SIZES.items():
            path = Path(folder) / f"{name}.mp4"
            write_clip(path, pictures(*size, arguments.seconds * FPS), FPS, None)
            for length in arguments.lengths:
                found = compare_reading(path, length, arguments)
                result["reading"][f"{size[1]} x {size[0]}, clips of {length:g} s"] = found
    for frames in FRAMES:
        result["networks"][f"{frames} frames"] = compare_networks(frames, arguments, device)
    ratios = [found["ratio"] for found in result["reading"].values()]
    return result | {"ratio": statistics.median(ratios)}


def pictures(height, width, count):
    """Yield pictures of a pattern that moves and changes slowly, so that films cost real bits."""
    rng = np.random.default_rng(0)
    pattern = rng.integers(0, 256, (height // 8 + 1, 2 * width // 8, 3), dtype=np.uint8)
    wide = pattern.repeat(8, axis=0)[:height].repeat(8, axis=1)
    for number in range(count):
        x = number % width
        yield np.ascontiguousarray(wide[:, x : x + width])


def compare_reading(path, length, arguments):
    """Count clips per second of CPU time, in turn; clips begin anywhere in the film."""
    rng = np.random.default_rng(0)
    starts = rng.uniform(0, max(arguments.seconds - length, 0.01), arguments.clips)
    rates, decoded = {"every frame": [], "needed": []}, {}
    for _ in range(arguments.repeats):
        for name, needed in (("every frame", False), ("needed", True)):
            before, count = time.process_time(), 0
            for start in starts:
                count += read_shown(
                    path,
                    lambda n: uniform_test(n, 8),
                    Size(112, 112),
                    float(start),
                    float(start) + length,
                    skip=needed,
                ).decoded
            rates[name].append(len(starts) / (time.process_time() - before))
            decoded[name] = count / len(starts)
    ratio = statistics.median(np.divide(rates["needed"], rates["every frame"]))
    return {"clips_per_cpu_second": rates, "frames_decoded": decoded, "ratio": float(ratio)}


def compare_networks(frames, arguments, device):
    """Time a training step of TSM and of the network without shift, and count their arithmetic."""
    clips = torch.randn(arguments.batch, frames, 3, arguments.size, arguments.size, device=device)
    labels = torch.zeros(arguments.batch, dtype=torch.int64, device=device)
    models = {
        name: TSM(arguments.network, CLASSES, shift=shift).to(device)
        for name, shift in (("plain", False), ("tsm", True))
    }

    def step(model):
        model.zero_grad()
        torch.nn.functional.cross_entropy(model(clips), labels).backward()

    ways = {name: lambda model=model: step(model) for name, model in models.items()}
    seconds, ratios = compare_times(ways, arguments.repeats, device)
    with torch.no_grad():
        flop = {n: count_flop(lambda m=m: m.eval()(clips)) for n, m in models.items()}
    parameters = sum(p.numel() for p in models["tsm"].parameters())
    return {
        "step_seconds": seconds,
        "plain_by_tsm": ratios["tsm"],
        "gflop_per_clip": {n: value / 1e9 / arguments.batch for n, value in flop.items()},
        "parameters": parameters,
        "gradient_bytes": {"fp32": 4 * parameters, "bf16": 2 * parameters},
    }
