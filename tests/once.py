"""Things that tests only read, made once for all workers of a run of the tests."""

import shutil

from fusion.files import lock, unlock
from tests.tiny import write_config


class Once:
    """Folders below one that all workers share; no test may change what is in them."""

    def __init__(self, root):
        self.root = root

    def __call__(self, name, make):
        """Give the folder of a name, which ``make(folder)`` filled in this worker or another."""
        folder, made = self.root / name, self.root / f"{name}.made"
        with open(self.root / f"{name}.lock", "w") as file:
            lock(file.fileno(), wait=True)
            try:
                if not made.exists():
                    shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed
                    folder.mkdir()
                    make(folder)
                    made.touch()
            finally:
                unlock(file.fileno())
        return folder

    def tiny_run(self):
        """Give the folder of a run of one epoch on the smallest built-in corpus."""
        return self("tiny", _train) / "run"


def _train(folder):
    from fusion.commands.train import train
    from fusion.config import load_config

    train(load_config(write_config(folder, trainer={"epochs": 1})))
