"""A causal classifier that watches films while they are read: latency, memory, deviation."""

import multiprocessing
import tempfile
from pathlib import Path

import numpy as np
import torch

from fusion.data.media.encode import write_clip
from fusion.data.media.shown import Size
from fusion.models.classifier import VideoClassifier
from fusion.process import memory_now
from fusion.tasks.classification.watching import Watcher
from tools.benchmarks.reading import FPS, SIZES, pictures

CLASSES, WINDOW = 8, 8
COMPARED = 200  # frames that the network also sees as a whole


def run(arguments, device):
    """Make films of some minutes, and watch each in a process of its own."""
    result = {"network": arguments.network, "rate": arguments.fps}
    with tempfile.TemporaryDirectory() as folder:
        for minutes in arguments.minutes:
            path = Path(folder) / f"{minutes:g}.mp4"
            frames = round(60 * minutes * FPS)
            write_clip(path, pictures(*SIZES["medium"], frames), FPS, None)
            given = (str(path), arguments.network, arguments.size, arguments.fps)
            with multiprocessing.get_context("spawn").Pool(1) as pool:  # memory of its own
                result[f"{minutes:g} minutes"] = pool.apply(watch, given)
            path.unlink()
    return result | {"deviation_from_offline": deviation(arguments)}


def make_watcher(network, side):
    """Make a watcher of random weights."""
    torch.manual_seed(0)
    model = VideoClassifier(network, CLASSES, crop_size=side, causal=True)
    torch.nn.init.normal_(model.tsm.classifier.weight)
    return Watcher(model, [str(n) for n in range(CLASSES)], Size(side, side), WINDOW)


def watch(path, network, side, rate):
    """Watch a film; return the times of its frames, and the memory when it begins and ends."""
    watcher, frames = make_watcher(network, side), 0
    for frames, _ in enumerate(watcher.watch_film(path, rate), start=1):
        if frames == 10 * rate:
            begun = memory_now()
    p50, p95 = (1e3 * float(np.quantile([*watcher.times], share)) for share in (0.5, 0.95))
    mib = {"after_10_s": begun / 2**20, "at_the_end": memory_now() / 2**20}
    kept = sum(x.untyped_storage().nbytes() for x in watcher.stream.frames.caches.values())
    times = {"cpu_ms_p50": p50, "cpu_ms_p95": p95}
    return {"frames": frames, **times, "memory_mib": mib, "kept_bytes": kept}


def deviation(arguments):
    """Return the largest difference of logits between the stream and the film as a whole."""
    watcher = make_watcher(arguments.network, arguments.size)
    shape = (1, COMPARED, 3, arguments.size, arguments.size)
    frames = torch.randint(0, 256, shape, dtype=torch.uint8)
    with torch.no_grad():
        whole = watcher.model.tsm.frame_logits(frames)[0]
    parts = torch.cat([watcher.stream.step(frame) for frame in frames.unbind(dim=1)])
    return {"largest": float((parts - whole).abs().max()), "of": float(whole.abs().max())}
