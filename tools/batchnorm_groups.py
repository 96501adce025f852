"""Train with BatchNorm groups of several sizes and print how the size changes retrieval.

All runs have the same batch and the same steps; only the group differs. Finished runs are not
repeated, and an interrupted one goes on.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fusion.commands.arguments import Parser, positive
from fusion.commands.errors import run
from fusion.training.log import read_metrics

EXAMPLES = """examples:
  python tools/batchnorm_groups.py runs/groups/eao
  python tools/batchnorm_groups.py runs/groups/digits --config configs/spoken_digits.yaml \\
    --epochs 24 data_root=FOLDER
  python tools/batchnorm_groups.py runs/groups/small --batch 64 --epochs 12 --groups 4 8 16 32 64
"""
GROUP = "model.modalities.audio.encoder.batchnorm_group"
MEASURES = ["t->va R@1", "t->a R@1", "v->a R@1"]  # with sound, which BatchNorm is for


def main():
    """Train, print a table, and write it beside the runs."""
    parser = Parser(description=__doc__, epilog=EXAMPLES)
    parser.add_argument("folder", type=Path, help="of the runs")
    parser.add_argument("--config", default="configs/eao.yaml", help="default: configs/eao.yaml")
    parser.add_argument("--groups", type=positive, nargs="+", default=[16, 32, 64, 128, 256, 512])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--batch", type=positive, default=512, help="clips (default: 512)")
    parser.add_argument("--epochs", type=positive, default=48, help="of each run (default: 48)")
    parser.add_argument(
        "changes", nargs="*", help="changes to the config, such as trainer.epochs=6"
    )
    arguments = parser.parse_intermixed_args()
    found = {
        group: [train(arguments, group, seed) for seed in arguments.seeds]
        for group in arguments.groups
    }
    print(f"{'group':>6}  " + "  ".join(f"{name:>14}" for name in MEASURES))
    for group, results in found.items():
        columns = ([row[name] for row in results] for name in MEASURES)
        cells = (f"{statistics.mean(c):.1f} ± {statistics.pstdev(c):.1f}" for c in columns)
        print(f"{group:>6}  " + "  ".join(f"{cell:>14}" for cell in cells))
    (arguments.folder / "groups.json").write_text(json.dumps(found, indent=1))


def train(arguments, group, seed):
    """Train, unless the run is finished; return the results of the last epoch on validation."""
    output = arguments.folder / f"{group}-{seed}"
    if not (output / "results.json").exists():
        print(f"training {output.name}", file=sys.stderr)
        words = [f"output={output}", f"seed={seed}", f"{GROUP}={group}", "resume=true"]
        words += [f"trainer.batch_size={arguments.batch}", f"trainer.epochs={arguments.epochs}"]
        command = [sys.executable, "tools/train.py", arguments.config, *words, *arguments.changes]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    rows = [r for r in read_metrics(output / "metrics.jsonl") if r["event"] == "validation"]
    return {name: rows[-1][name] for name in MEASURES}


if __name__ == "__main__":
    run(main)
