"""Inject faults into small runs, and count what is seen: damaged checkpoints, signals, kills."""

import collections
import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the smallest config is one of the tests

import psutil
import torch
from torch.utils.data import TensorDataset
from tqdm import tqdm

from fusion.checkpoint import CheckpointError
from fusion.commands.arguments import Parser, positive
from fusion.commands.errors import run
from fusion.losses import nce
from fusion.manifest import check_files
from fusion.training import Settings, fit
from fusion.training.log import read_metrics
from tests.tiny import write_config

EXAMPLES = """examples:
  python tools/reliability.py damage --times 300     # newest checkpoint damaged, then resume
  python tools/reliability.py signals                # every way to launch, told to stop
  python tools/reliability.py signals --signals SIGTERM --launches python torchrun-2
  python tools/reliability.py restart                # a rank is killed under --max_restarts 1

The last line of the output is JSON.
"""
TORCHRUN = ("-m", "torch.distributed.run", "--nproc_per_node")
LAUNCHES = {  # words of Python, overrides, whether the signal goes to the whole group
    "python": ((), (), False),
    "python, 2 workers, group": ((), ("trainer.num_workers=2",), True),
    "accelerate": (("-m", "accelerate.commands.accelerate_cli", "launch", "--cpu"), (), False),
    "torchrun-1": ((*TORCHRUN, "1"), ("trainer.num_workers=1",), False),
    "torchrun-2": ((*TORCHRUN, "2"), ("trainer.num_workers=1",), False),
}
WAYS = ("flip a bit", "cut short", "delete")
PATIENCE = 300  # seconds until something that must happen has not


# --- Damaged checkpoints --------------------------------------------------------------------------


class Towers(torch.nn.Module):
    """Two linear maps."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.left, self.right = torch.nn.Linear(6, 4), torch.nn.Linear(5, 4)

    def forward(self, batch):
        """Embed both sides."""
        return {"left": self.left(batch[0]), "right": self.right(batch[1])}


def train(folder, resume, dies=False):
    """Train four epochs of four steps; if it ``dies``, in the evaluation after the third."""
    generator = torch.Generator().manual_seed(0)
    data = TensorDataset(*(torch.randn(32, n, generator=generator) for n in (6, 5)))
    settings = Settings(epochs=4, batch_size=8, learning_rate=0.05, log_every=1)
    model, count = Towers(), []

    def evaluate(model):
        count.append(1)
        if dies and len(count) == 3:
            raise KeyboardInterrupt
        return {"score": float(model.left.weight.sum())}

    with contextlib.redirect_stderr(io.StringIO()):
        fit(
            model,
            lambda outputs: nce(outputs["left"], outputs["right"]),
            data,
            settings,
            evaluate=evaluate,
            folder=folder,
            resume=resume,
        )
    return digest(model), [row["loss"].hex() for row in rows(folder)]


def rows(folder):
    """Read the logged steps of a run."""
    return [row for row in read_metrics(folder / "metrics.jsonl") if row["event"] == "train"]


def digest(model):
    """Hash all weights."""
    weights = b"".join(t.numpy().tobytes() for t in model.state_dict().values())
    return hashlib.sha256(weights).hexdigest()


def damage(folder, chosen):
    """Damage a file of a checkpoint at random; say which and how."""
    path, way = chosen.choice(sorted(folder.iterdir())), chosen.choice(WAYS)
    data = bytearray(path.read_bytes())
    if way == "delete":
        path.unlink()
        return path.name, way
    if way == "cut short":
        data = data[: chosen.randrange(len(data))]
    else:
        data[chosen.randrange(len(data))] ^= 1 << chosen.randrange(8)
    path.write_bytes(data)
    return path.name, way


def try_damage(arguments, folder):
    """Damage the newest checkpoint, or both, and go on; count the outcomes."""
    chosen, seen = random.Random(arguments.seed), collections.Counter()
    expected = train(folder / "whole", False)
    with contextlib.suppress(KeyboardInterrupt):
        train(folder / "cut", False, dies=True)
    for number in tqdm(range(arguments.times), unit="run"):
        copy, both = folder / "copy", number % 10 == 9
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder / "cut", copy)
        name, way = damage(copy / "last", chosen)
        if both:
            damage(copy / "last.1", chosen)
        try:
            same = train(copy, True) == expected
            outcome = "went on, equal to the undisturbed run" if same else "WENT ON, DIFFERENT"
        except CheckpointError:
            outcome = "refused in one line"
        seen["both copies" if both else name, "" if both else way, outcome] += 1
    for key, count in sorted(seen.items()):
        print(f"{count:5}  {'  '.join(filter(None, key))}")
    outcomes = collections.Counter[str]()
    for key, count in seen.items():
        outcomes[key[2]] += count
    return {"injected": arguments.times, "seen": outcomes}


# --- Signals and kills ----------------------------------------------------------------------------


def begin(folder, words, overrides):
    """Start a training in a session of its own and wait for its first logged step."""
    config = write_config(folder, trainer={"epochs": 500, "log_every": 4})
    command = [sys.executable, *words, "tools/train.py", str(config), *overrides]
    with open(folder / "errors", "w") as errors:
        process = subprocess.Popen(command, stderr=errors, stdout=errors, start_new_session=True)
    wait(lambda: process.poll() is not None or rows(folder / "run"), folder)
    return process, psutil.Process(process.pid).children(recursive=True)


def wait(condition, folder):
    """Wait for something; an error shows what the run said."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise OSError(f"waited in vain: {(folder / 'errors').read_text()[-2000:]}")
        time.sleep(0.05)


def try_signals(arguments, folder):
    """Tell every launch to stop by every signal; say how it ended and what was saved."""
    result = {}
    for launch in arguments.launches:
        words, overrides, group = LAUNCHES[launch]
        for name in arguments.signals:
            place = folder / f"{launch}-{name}"
            place.mkdir()
            process, others = begin(place, words, overrides)
            (os.killpg if group else os.kill)(process.pid, getattr(signal, name))
            code = process.wait(PATIENCE)
            _, left = psutil.wait_procs(others, timeout=60)
            said, logged = (place / "errors").read_text(), rows(place / "run")[-1]["step"]
            result[f"{launch}, {name}"] = seen = {
                "exit code": code if code >= 0 else 128 - code,
                "saved": check_files(place / "run" / "last")["step"] >= logged,
                "processes left": len(left),
                "lines that say so": said.count(f"stopped by {name}; go on with resume=true"),
                "tracebacks": said.count("Traceback (most recent"),
                "of the launcher": said.count("distributed/elastic/multiprocessing/api.py"),
            }
            print(f"{launch}, {name}: {seen}", flush=True)
    return result


def try_restart(arguments, folder):
    """Kill one of two ranks under ``--max_restarts 1``: it must go on from the checkpoint."""
    overrides = ("trainer.epochs=3", "trainer.save_every=1", "trainer.log_every=1")
    words = (*TORCHRUN, "2", "--max_restarts", "1")
    process, ranks = begin(folder, words, (*overrides, "overwrite=true"))
    ranks[-1].kill()
    code = process.wait(PATIENCE)
    steps = [row["step"] for row in rows(folder / "run")]
    return {"exit code": code, "every step once": steps == list(range(1, len(steps) + 1))}


def main():
    """Inject and count."""
    parser = Parser(description=__doc__, epilog=EXAMPLES)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("damage", help="a bit of the newest checkpoint, or a whole file")
    command.add_argument("--times", type=positive, default=300, help="how often (default: 300)")
    command.add_argument("--seed", type=int, default=0, help="of the faults (default: 0)")
    command = commands.add_parser("signals", help="SIGTERM, SIGINT, SIGHUP to all kinds of launch")
    names = ["SIGTERM", "SIGINT", "SIGHUP"]
    command.add_argument("--signals", nargs="+", choices=names, default=names, help="which")
    choices = list(LAUNCHES)
    command.add_argument("--launches", nargs="+", choices=choices, default=choices, help="which")
    commands.add_parser("restart", help="SIGKILL to one of two ranks under --max_restarts 1")
    arguments = parser.parse_args()
    trial = {"damage": try_damage, "signals": try_signals, "restart": try_restart}
    with tempfile.TemporaryDirectory() as folder:
        result = trial[arguments.command](arguments, Path(folder))
    print(json.dumps({"command": arguments.command, **result}))


if __name__ == "__main__":
    run(main)
