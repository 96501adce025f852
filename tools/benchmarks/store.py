"""Reading random clips from a feature store, and from the published files as a whole."""

import os
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import torch
from torch.utils.data import DataLoader

from fusion.commands.pack import pack_howto100m
from fusion.data.captions.index import write_caption_store
from fusion.data.captions.table import Caption
from fusion.data.datasets.dataset import collate
from fusion.data.datasets.howto100m import HowTo100M
from fusion.data.datasets.sampling import feature_range
from fusion.data.features.store import FeatureStore
from fusion.data.media.log_mel import spectrogram_range

CLIP = 8.0  # seconds
ROWS = {"2d": 1.0, "3d": 1.5, "audio": 100.0}  # per second


def run(arguments, device):
    """Make videos, read clips of them in both ways, then load batches for three epochs."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make(root, arguments.videos, arguments.seconds)
        pack_howto100m(root, root / "store")
        stored = FeatureStore(root / "store")
        result = {"videos": arguments.videos, "seconds_of_video": arguments.seconds}
        for name, kept in [("clips_anywhere", 1), ("ten_clips_of_a_video", 10)]:
            result[name] = compare(root, stored, arguments, kept)
        result["cold"] = cold(root, stored, arguments)
        result["ratio"] = result["ten_clips_of_a_video"]["ratio"]
        return result | loaders(root, arguments)


def make(root, videos, seconds):
    """Write features as published, of random numbers, and captions."""
    rng, howto = np.random.default_rng(0), root / "howto"
    names = [f"v{number:05d}" for number in range(videos)]
    for name in names:
        for kind in ("features", "audio_features"):
            (howto / kind / name).mkdir(parents=True)
        for kind in ("2d", "3d"):
            rows = rng.standard_normal((int(seconds * ROWS[kind]), 2048), np.float32)
            np.savez(howto / "features" / name / f"{name}_{kind}.npz", features=rows.astype("f2"))
        sound = rng.standard_normal((40, int(seconds * 100)), np.float32).astype("f2")
        np.savez(howto / "audio_features" / name / f"{name}_spec.npz", sound)
    (howto / "HowTo100M_1166_videopaths.txt").write_text("path\n" + "\n".join(names) + "\n")
    times = range(0, seconds - 5, 5)
    said = [[Caption(name, s, s + 4.0, "stir the pot") for s in times] for name in names]
    write_caption_store(howto / "captions", zip(names, said, strict=True))


def compare(root, stored, arguments, together):
    """Count clips per second of CPU time, in turn."""
    rates = {"whole files": [], "store": []}
    for round_ in range(arguments.repeats):
        for name, count in [("whole files", 5 * together), ("store", 100 * together)]:
            # Another reader each time, as nobody comes back to a video while it is in memory.
            reader = stored if name == "store" else published(root)
            wanted = draw(stored.videos, count, together, arguments.seconds, round_)
            before = time.process_time()
            for clip in wanted:
                read(reader, *clip)
            rates[name].append(count / (time.process_time() - before))
    ratios = np.divide(rates["store"], rates["whole files"])
    return {"clips_per_cpu_second": rates, "ratio": float(np.median(ratios))}


def published(root):
    """Open the published folders."""
    source = HowTo100M(str(root), captions=str(root / "howto" / "captions"))
    return source.clips("train", str).reader


def draw(videos, count, together, seconds, seed):
    """Draw clips: (video, start)."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(videos), count // together)
    return [(videos[v], s) for v in chosen for s in rng.uniform(0, seconds - CLIP, together)]


def read(reader, video, start):
    """Read one clip."""
    ranges = {k: feature_range(start, start + CLIP, ROWS[k]) for k in ("2d", "3d")}
    ranges["audio"] = spectrogram_range(start, start + CLIP)
    return [reader.read(video, name, *rows) for name, rows in ranges.items()]


def cold(root, stored, arguments):
    """Count the bytes that come from the disk for a clip, each read for the first time."""
    if not Path("/proc/self/io").exists():
        return None
    result = {}
    for name, reader in [("whole files", published(root)), ("store", stored)]:
        total = used = 0
        for clip in draw(stored.videos, 50, 1, arguments.seconds, 99):
            forget(root)
            before = from_disk()
            used += sum(rows.numel() * 2 for rows in read(reader, *clip))
            total += from_disk() - before
        result[name] = {"KiB_per_clip": total / 50 / 2**10, "of_bytes_used": total / used}
    return result


def forget(root):
    """Take the files out of the memory of the system."""
    for path in root.rglob("*.*"):
        if path.suffix in (".npz", ".safetensors"):
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def from_disk():
    """Count the bytes that this process had read from the disk."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("read_bytes")).split()[1])


def loaders(root, arguments):
    """Load three epochs with four processes and see what memory they take."""
    source = HowTo100M(
        str(root),
        store=str(root / "store"),
        captions=str(root / "howto" / "captions"),
        clips_per_video=arguments.clips_per_video,
    )
    clips = source.clips("train", lambda text: torch.zeros(len(text.split()), 1))
    sizes, batches = [], 0
    loader = DataLoader(
        clips, batch_size=16, num_workers=4, collate_fn=collate, persistent_workers=True
    )
    for epoch in range(3):
        clips.set_epoch(epoch)
        for _ in loader:
            batches += 1
            if batches % 20 == 0:
                sizes.append((batches, resident()))
    steps, values = np.array(sizes).T
    late = steps > steps[-1] / 3  # in the first epoch the processes are still starting
    slope = np.polyfit(steps[late], values[late], 1)[0]
    return {"batches": batches, "MiB_per_1000_batches": float(slope * 1000 / 2**20)}


def resident():
    """Return the memory of all processes that load data, in bytes, without what they share."""
    children = psutil.Process().children()
    return sum(child.memory_full_info().uss for child in children if child.is_running())
