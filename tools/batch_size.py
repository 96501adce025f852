"""Train with several batch sizes and draw how the size changes retrieval.

Each size is trained twice: once on as many clips as 10 epochs of configs/eao.yaml show, so a larger
batch takes fewer steps; and once for as many steps as those epochs take. Everything else, with the
learning rate, is as in the config. Finished runs are not repeated.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).parents[1]))

from fusion.commands.arguments import Parser
from fusion.commands.errors import run
from fusion.training.log import read_metrics

CONFIG = "configs/eao.yaml"
CLIPS, EPOCHS, BATCH = 2400, 10, 64  # of the config
STEPS = EPOCHS * (CLIPS // BATCH)
SIZES = [32, 64, 128, 256, 512]
MEASURE = "t->va R@1"


def epochs(kind, size):
    """Return how many epochs have as many steps, or show as many clips, as the config."""
    return EPOCHS if kind == "clips" else round(STEPS / (CLIPS // size))


def train(folder, kind, size, seed):
    """Train, unless the run is finished; return the best result on the validation split."""
    output = folder / f"{kind}-{size}-{seed}"
    if not (output / "results.json").exists():
        print(f"training {output.name}", file=sys.stderr)
        changes = [f"output={output}", f"seed={seed}", f"trainer.batch_size={size}"]
        changes += [f"trainer.epochs={epochs(kind, size)}", "resume=true"]
        subprocess.run([sys.executable, "tools/train.py", CONFIG, *changes], check=True)
    rows = read_metrics(output / "metrics.jsonl")
    return max(row[MEASURE] for row in rows if row["event"] == "validation")


def draw(results, path):
    """Draw the mean over seeds of each kind against the size, and every seed as a dot."""
    matplotlib.rcParams["svg.hashsalt"] = "fusion"  # the same file for the same numbers
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    labels = {"steps": f"{STEPS} steps", "clips": f"{CLIPS * EPOCHS:,} clips"}
    for kind, colour in [("steps", "tab:blue"), ("clips", "tab:orange")]:
        sizes = sorted({size for k, size, _ in results if k == kind})
        values = {s: [v for (k, z, _), v in results.items() if (k, z) == (kind, s)] for s in sizes}
        means = [statistics.mean(values[size]) for size in sizes]
        axes.plot(sizes, means, color=colour, label=labels[kind])
        for size in sizes:
            axes.plot([size] * len(values[size]), values[size], "o", color=colour, alpha=0.5)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set(xlabel="batch size (clips)", ylabel=f"{MEASURE}, validation (%)")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, metadata={"Date": None})


def main():
    """Train all runs and draw the figure."""
    parser = Parser(description=__doc__)
    parser.add_argument("figure", type=Path, help="SVG file to write")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="batch sizes (clips)")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1], help="seeds of each batch size"
    )
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/batch_size"), help="folder of the runs"
    )
    arguments = parser.parse_args()
    results = {
        (kind, size, seed): train(arguments.runs, kind, size, seed)
        for seed in arguments.seeds
        for size in arguments.sizes
        for kind in ("clips", "steps")
    }
    draw(results, arguments.figure)
    print(json.dumps({" ".join(map(str, key)): value for key, value in results.items()}))


if __name__ == "__main__":
    run(main)
