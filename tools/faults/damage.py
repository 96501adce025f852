"""Damage the newest checkpoint of a run, or both, and go on."""

import collections
import contextlib
import hashlib
import io
import random
import shutil

import torch
from torch.utils.data import TensorDataset
from tqdm import tqdm

from fusion.checkpoint import CheckpointError
from fusion.losses import nce
from fusion.training import Settings, fit
from tools.faults.runs import steps

WAYS = ("flip a bit", "cut short", "delete")


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
    return digest(model), [row["loss"].hex() for row in steps(folder)]


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


def try_damage(times, seed, folder):
    """Damage the newest checkpoint, or both, and go on; count the outcomes."""
    chosen, seen = random.Random(seed), collections.Counter()
    expected = train(folder / "whole", False)
    with contextlib.suppress(KeyboardInterrupt):
        train(folder / "cut", False, dies=True)
    for number in tqdm(range(times), unit="run"):
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
    return {"injected": times, "seen": outcomes}
