"""Reading clips of films: only the frames that are needed against every frame before them.

Clips per second of CPU time, which is per core, for clips of some lengths out of films of three
sizes; and the share of a training that steps wait for their frames, with 0, 1 and 2 workers.
"""

import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from fusion.commands.train import train
from fusion.config import load_config
from fusion.data.labelled.frame_sampling import uniform_test
from fusion.data.media.encode import write_clip
from fusion.data.media.shown import Size, read_shown
from fusion.report.layout import align

FPS = 25
SIZES = {"small": (120, 160), "medium": (240, 320), "large": (480, 640)}  # height, width
FRAMES, SIDE = 8, 112  # of a clip
WORKERS = (0, 1, 2)
FILMS, FILM_SECONDS = 16, 10  # of each of two classes, for the training
HEAD = ["film", "clip", "needed, clips/s", "every frame", "ratio", "decoded", "of"]


def run(arguments, device):
    """Make films, read clips of them in both ways, then train on such films."""
    result = {"seconds_of_film": arguments.seconds, "reading": {}, "reading_share": {}}
    with tempfile.TemporaryDirectory() as folder:
        for name, size in SIZES.items():
            path = Path(folder) / f"{name}.mp4"
            write_clip(path, pictures(*size, arguments.seconds * FPS), FPS, None)
            for length in arguments.lengths:
                found = compare_reading(path, length, arguments)
                result["reading"][f"{size[1]} x {size[0]}, clips of {length:g} s"] = found
        print("\n".join(align(table(result["reading"]), left=2)))
        films = write_classes(Path(folder) / "films", arguments.films)
        for workers in WORKERS:
            share = reading_share(films, Path(folder) / f"run_{workers}", workers)
            result["reading_share"][f"{workers} workers"] = share
            print(f"{workers} workers: steps wait {100 * share:.0f} % of their time for frames")
    ratios = [found["ratio"] for found in result["reading"].values()]
    return result | {"ratio": statistics.median(ratios)}


def pictures(height, width, count, step=1):
    """Yield pictures of a pattern that moves by ``step``, so that films cost real bits."""
    rng = np.random.default_rng(0)
    pattern = rng.integers(0, 256, (height // 8 + 1, 2 * width // 8, 3), dtype=np.uint8)
    wide = pattern.repeat(8, axis=0)[:height].repeat(8, axis=1)
    for number in range(count):
        x = step * number % width
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
                    lambda n: uniform_test(n, FRAMES),
                    Size(SIDE, SIDE),
                    float(start),
                    float(start) + length,
                    skip=needed,
                ).decoded
            rates[name].append(len(starts) / (time.process_time() - before))
            decoded[name] = count / len(starts)
    ratio = statistics.median(np.divide(rates["needed"], rates["every frame"]))
    return {"clips_per_cpu_second": rates, "frames_decoded": decoded, "ratio": float(ratio)}


def table(rows):
    """Lay the rows out for the terminal."""
    lines = [HEAD]
    for name, row in rows.items():
        film, _, clip = name.partition(", clips of ")
        rates, decoded = row["clips_per_cpu_second"], row["frames_decoded"]
        speeds = [f"{statistics.median(rates[way]):.1f}" for way in ("needed", "every frame")]
        counts = [f"{decoded[way]:.0f}" for way in ("needed", "every frame")]
        lines.append([film, clip, *speeds, f"{row['ratio']:.1f}", *counts])
    return lines


def write_classes(folder, films):
    """Write films of two classes, whose pattern moves to the left and to the right."""
    for split, number in (("train", films), ("val", 1)):
        for name, step in (("left", 1), ("right", -1)):
            (folder / split / name).mkdir(parents=True)
            for film in range(number):
                shown = pictures(*SIZES["medium"], FILM_SECONDS * FPS, step)
                write_clip(folder / split / name / f"{film}.mp4", shown, FPS, None)
    return folder


def reading_share(films, output, workers):
    """Train a small TSM on films that are decoded in training; return the share of the last epoch.

    The first epoch starts the workers.
    """
    words = [
        f"data={{name: labelled_films, folder: {films}, frames: {FRAMES}, frame_size: 128,"
        " cache: false}",
        f"output={output}",
        "model.network=resnet18",
        f"model.crop_size={SIDE}",
        "model.batchnorm_group=4",
        "trainer.batch_size=8",
        "trainer.epochs=2",
        "trainer.log_every=1",
        f"trainer.num_workers={workers}",
        "evaluation.films_in_report=0",
    ]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train(load_config("tsm", words))
    finally:
        torch.set_num_threads(threads)
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["event"] == "train" and row["epoch"] == 2]
    seconds = [1 / row["clips_per_second"] for row in rows]
    return float(np.average([row["reading_share"] for row in rows], weights=seconds))
