"""Questions to indexes of many clips: how long they take, what is found, what memory it needs.

The vectors are made as embeddings look: they lie in clusters, vary in 64 directions, the first more
than the last, and share an offset. A question is like a clip of the index, or like words: it has
another offset and twice the noise.
"""

import contextlib
import json
import multiprocessing
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from fusion.search.engines.choice import prepare
from fusion.search.index import Index
from fusion.search.storage import Clip, Film, Storage

PER_FILM, PER_CLUSTER, LATENT = 1000, 200, 64
KINDS = ("clips", "words")  # of questions


def run(arguments, device):
    """Make an index of each size, and ask each engine."""
    result = {"width": arguments.width, "queries": arguments.queries}
    for count in arguments.clips:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            result[f"{count}_clips"] = measure(Path(folder) / "index", count, arguments)
            print(count, json.dumps(result[f"{count}_clips"]), flush=True)
    return result


def measure(folder, count, arguments):
    """Compare the engines at one size."""
    made = {"seconds_to_write": timed(lambda: write(folder, count, arguments.width))}
    found = {}
    for engine in ("exact", "faiss"):
        with contextlib.closing(Storage(folder, write=True)) as storage:
            seconds = timed(lambda: prepare(storage, engine, quiet=True))  # noqa: B023
            lists = storage.fact("neighbours")
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            figures, found[engine] = pool.apply(ask, (folder, count, engine, arguments))
        made[engine] = figures | {"seconds_to_prepare": seconds, "lists": lists}
        made[engine]["recall@10"] = {
            kind: float(np.mean([len({*a} & {*b}) / 10 for a, b in zip(ours, exact, strict=True)]))
            for kind, ours, exact in zip(KINDS, found[engine], found["exact"], strict=True)
        }
    sizes = {file.suffix: file.stat().st_size for file in (folder / "vectors").iterdir()}
    made["MiB"] = {name: size / 2**20 for name, size in sizes.items()}
    made["MiB"]["index.sqlite"] = (folder / "index.sqlite").stat().st_size / 2**20
    return made


def write(folder, count, width):
    """Write an index of one combination, without a model."""
    with contextlib.closing(Storage(folder, write=True)) as storage:
        storage.set_facts(model="none", combinations=["v"], modalities=["video"], rows=0)
        for first in range(0, count, PER_FILM):
            vectors = draw(first + 1, min(PER_FILM, count - first), count, width)
            clips = [Clip(i, i + 1.0, "", "v") for i in range(len(vectors))]
            film = Film(f"/films/{first:08}.mp4", "", float(PER_FILM))
            storage.replace(film, clips, {"v": vectors})


def draw(seed, number, count, width, words=False):
    """Draw vectors of unit length that lie in the clusters of an index of ``count`` clips."""
    fixed = np.random.default_rng(0)
    centres = fixed.standard_normal((max(1, count // PER_CLUSTER), LATENT), np.float32)
    scale = np.arange(1, LATENT + 1, dtype=np.float32) ** -0.5
    basis = fixed.standard_normal((LATENT, width), np.float32) / width**0.5
    offsets = fixed.standard_normal((2, width), np.float32) / width**0.5
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((number, LATENT), np.float32) * (1.0 if words else 0.5)
    latent = (centres[rng.integers(0, len(centres), number)] + noise) * scale
    vectors = latent @ basis + 2 * offsets[int(words)]
    vectors += 0.1 * rng.standard_normal((number, width), np.float32) / width**0.5
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def ask(folder, count, engine, arguments):
    """Open an index in a process of its own, and ask; return figures, and the clips found."""
    before = resident()
    began = time.perf_counter()
    index = Index(folder, engine=engine)
    opened = time.perf_counter() - began
    seconds, found = [], []
    for kind in KINDS:
        words = kind == "words"
        queries = draw(2**31 + words, arguments.queries, count, arguments.width, words)
        index.nearest(queries[0])  # opens the lists, and reads the files for the first time
        found.append([])
        for query in queries:
            start = time.perf_counter()
            hits = index.nearest(query)
            seconds.append(time.perf_counter() - start)
            found[-1].append([hit.id for hit in hits])
    after = resident()
    p50, p95 = (1000 * float(q) for q in np.quantile(seconds, [0.5, 0.95]))
    figures = {"ms_p50": p50, "ms_p95": p95, "seconds_to_open": opened}
    figures |= {name: after[name] - before[name] for name in after}
    return figures, found


def resident():
    """Return the MiB that this process holds: its own, and those of files that it has mapped."""
    held = psutil.Process().memory_info()
    return {"MiB_own": (held.rss - held.shared) / 2**20, "MiB_mapped": held.shared / 2**20}


def timed(function):
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
