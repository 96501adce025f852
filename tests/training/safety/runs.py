"""A small run that was stopped between two checkpoints, and ways to damage it."""

import os
import shutil

import pytest
import torch

from fusion.training.run_folder import RunFolder
from fusion.training.safety.checkpoints import SEALED, STATE
from tests.training.test_trainer import losses, make, state

WAYS = ("flip", "cut", "gone")


class Undisturbed:
    """A run of three epochs of four steps, whole; and one that died in its third evaluation."""

    def __init__(self, folder):
        self.whole, self.cut = folder / "whole", folder / "cut"
        trainer = make(self.whole)
        trainer.fit()
        self.losses, self.state = losses(self.whole), state(trainer)
        seen = []

        def die(model):
            seen.append(model)
            if len(seen) == 3:
                raise KeyboardInterrupt
            return {"score": model.map["t"].weight.sum().item()}

        with pytest.raises(KeyboardInterrupt):
            make(self.cut, evaluate=die).fit()


def go_on(folder, **settings):
    """Open the folder of a run as a user's own loop does, and go on with the run."""
    run = RunFolder(folder, {"resume": True, "overwrite": False})
    assert run.open()
    return make(folder, resume=True, **settings)


def copy_of(folder, place):
    return shutil.copytree(folder, place / "run")


def damage(path, way, place=0.5, bit=3):
    """Flip a bit of a file, cut it to a share of its size, or delete it."""
    if way == "gone":
        path.unlink()
    elif way == "cut":
        os.truncate(path, int(path.stat().st_size * place))
    else:
        data = bytearray(path.read_bytes())
        data[int(len(data) * place)] ^= 1 << bit
        path.write_bytes(data)


def change_state(folder, change):
    """Change what a checkpoint of an older version, without a manifest, has as its state."""
    (folder / "manifest.json").unlink(missing_ok=True)
    saved = torch.load(folder / STATE)
    saved.pop(SEALED, None)
    torch.save(change(saved) or saved, folder / STATE)
