"""Evaluation of a large gallery: this version against another one, in turn, in one run.

Each measurement is a program of its own (``gallery_child.py``), on one or several processes.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

HERE = Path(__file__).resolve().parents[2]
CHILD = Path(__file__).with_name("gallery_child.py")


def run(arguments, device):
    """Measure both versions; on a CPU unless ``--gpu`` is given."""
    options = {
        "clips": arguments.clips,
        "captions": arguments.captions or arguments.clips,
        "width": arguments.width,
        "combinations": arguments.combinations,
        "simple": arguments.simple,
        "queries": arguments.queries,
        "device": "cuda" if arguments.gpu else "cpu",
        "workers": arguments.workers,
        "processes": arguments.processes,
        "threads": max(1, len(os.sched_getaffinity(0)) // arguments.processes),
    }
    if arguments.threads:
        options["threads"] = arguments.threads
    folders = {"fast": HERE} | ({"plain": Path(arguments.against)} if arguments.against else {})
    found = {name: [] for name in folders}
    result = {"options": options}
    with tempfile.TemporaryDirectory() as place:
        files = []
        for number in tqdm(range(arguments.repeats), desc="measuring", unit="round", leave=False):
            for name, folder in folders.items():
                files.append(Path(place) / f"{name}{number}.npz")
                found[name].append(measure(folder.resolve(), options | {"ranks": str(files[-1])}))
        result |= compare_ranks(files)
    for part in ("embed", "rank", "all"):
        seconds = {n: [one["cpu_s"][part] for one in ones] for n, ones in found.items()}
        result[f"{part}_cpu_s"] = seconds
        if "plain" in seconds:
            ratios = [p / f for p, f in zip(seconds["plain"], seconds["fast"], strict=True)]
            result[f"{part}_ratio"] = sorted(ratios)[len(ratios) // 2]
    for part in ("embed", "rank"):
        result[f"{part}_s"] = {
            n: [one["wall_s"][part] for one in ones] for n, ones in found.items()
        }
    unique = found["fast"][0]["bytes"]
    result["embeddings_MiB"] = {n: ones[0]["bytes"] / 2**20 for n, ones in found.items()}
    result["peak_of_embeddings"] = {
        n: max(one["peak"] for one in ones) / unique for n, ones in found.items()
    }
    if arguments.queries:  # a product of matrices takes all the time: it grows as queries x clips
        cells = options["queries"] * options["clips"]
        seconds = min(result["rank_cpu_s"]["fast"])
        result["ns_per_score"] = 1e9 * seconds / cells
        result["cpu_h_for_every_clip"] = seconds / cells * options["clips"] ** 2 / 3600
        result["whole_process_MiB"] = found["fast"][0]["whole_process_bytes"] / 2**20
    if arguments.gpu:
        result["peak_of_gpu_MiB"] = found["fast"][0]["gpu_bytes"] / 2**20
    return result


def compare_ranks(files):
    """Say which share of the ranks is not as in the first file, and by how many places at most."""
    first, *others = [dict(np.load(file)) for file in files]
    ways = [np.abs(other[name] - first[name]) for other in others for name in first]
    if not ways:
        return {}
    differences = np.concatenate(ways)
    return {
        "other_ranks_percent": 100 * float((differences > 0).mean()),
        "places_apart_at_most": float(differences.max()),
    }


def measure(folder, options):
    """Run one measurement with the package of a folder."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    world = options["processes"]
    shared = {"WORLD_SIZE": world, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    shared |= {"PYTHONPATH": folder, "OMP_NUM_THREADS": options["threads"]}
    environment = os.environ | {name: str(value) for name, value in shared.items()}
    command = [sys.executable, str(CHILD), json.dumps(options)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    children = [
        subprocess.Popen(
            command, env=environment | {"RANK": str(i)}, cwd=folder, text=True, **pipes
        )
        for i in range(world)
    ]
    for child in children:
        if child.stdout.readline() != "start\n":
            raise RuntimeError(f"{CHILD.name} failed in {folder}; run it by hand: {command}")
    before = memory_of(children)
    peaks, over = [before], threading.Event()
    watch = threading.Thread(target=watch_memory, args=(children, peaks, over))
    watch.start()
    for child in children:
        child.stdin.write("\n")
        child.stdin.flush()
    found = [json.loads(child.stdout.readline()) for child in children]
    over.set()
    watch.join()
    for child in children:
        child.wait()
    parts = {name: sum(one["cpu_s"][name] for one in found) for name in ("embed", "rank")}
    main = found[0] | {"cpu_s": parts | {"all": sum(parts.values())}}
    return main | {"peak": max(peaks) - before}


def watch_memory(children, peaks, over):
    """Look at the memory of all processes together again and again."""
    while not over.is_set():
        peaks.append(memory_of(children))
        time.sleep(0.1)


def memory_of(children):
    """Sum up the memory of processes in bytes; what they share counts once."""
    total = 0
    for child in children:
        try:
            text = Path(f"/proc/{child.pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += int(text.split("Pss:")[1].split()[0]) * 1024
    return total
