"""What safety costs: guards of a step, and the manifest of a checkpoint, beside the step itself.

CPU seconds of this process, all measured by turns: other programs on the machine change them less
than the time on a clock. On a GPU they are seconds until the device has done its work.
"""

import statistics
import tempfile
import time
from pathlib import Path

import torch
from tqdm import tqdm

from fusion.checkpoint import save_weights
from fusion.manifest import check_files, write_manifest
from fusion.training.optim import allocate_state, make_optimizer
from fusion.training.safety.checkpoints import check_finite
from fusion.training.safety.guard import SkippedClips, WeightGuard
from fusion.training.settings import Settings
from tools.benchmarks.measure import finish
from tools.benchmarks.models import make_inputs, make_loss, make_model
from tools.benchmarks.step import fast_step, step

LOG_EVERY = Settings.log_every  # steps between two looks at the weights
SAVE_SECONDS = 60 * Settings.save_every_minutes


def run(arguments, device):
    """Measure the shares of a step's time that guards and manifests take."""
    model, loss = make_model(arguments.size, True, device), make_loss()
    inputs = make_inputs(arguments.size, True, arguments.batch, 1.0, device)
    optimizer = make_optimizer("adam", model.parameters(), 1e-4, 0.0)
    allocate_state(optimizer)
    optimizer.found_inf = torch.zeros((), device=device)
    guard, skipped = WeightGuard(model.parameters()), SkippedClips()
    ids, bad = [str(i) for i in range(arguments.batch)], torch.zeros((), device=device)

    def look():
        for number in range(LOG_EVERY):
            skipped.note(number, ids, bad)
        skipped.take()
        guard.look(0, None)

    def check():
        check_finite({"weights": model.state_dict(), "state": optimizer.state_dict()["state"]}, 0)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def write():
            save_weights(folder, model)
            torch.save(optimizer.state_dict(), folder / "trainer.pt")

        ways = {
            "step": lambda: (step(fast_step, model, loss, inputs), optimizer.step()),
            "look": look,
            "check": check,
            "write": write,
            "manifest": lambda: write_manifest(folder, {"step": 0}),
            "verify": lambda: check_files(folder),
        }
        seconds = by_turns(ways, arguments.repeats, device)
        size = sum(file.stat().st_size for file in folder.iterdir())
    own = {name: statistics.median(values) for name, values in seconds.items()}
    share = {
        "guards": own["look"] / LOG_EVERY / own["step"],
        "manifest and checks, every 10 minutes": (own["check"] + own["manifest"]) / SAVE_SECONDS,
    }
    return {
        "size": arguments.size,
        "batch": arguments.batch,
        "checkpoint_MiB": size / 2**20,
        "seconds": seconds,
        "share_of_training": share | {"together": sum(share.values())},
        "manifest_to_write": own["manifest"] / own["write"],
    }


def by_turns(ways, repeats, device):
    """Measure each way once in every round, after one that does not count."""
    seconds = {name: [] for name in ways}
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    for turn in tqdm(range(repeats + 1), desc="timing", unit="round", leave=False):
        for name, way in ways.items():
            finish(device)
            start = clock()
            way()
            finish(device)
            if turn:
                seconds[name].append(clock() - start)
    return seconds
