"""Train 2,000 steps in three epochs with two workers; print memory and open files on the way.

    python tests/training/growth.py

The last line of the output is JSON: a list of [step, bytes of memory, number of open files].
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from fusion.losses import nce
from fusion.process import memory_now
from fusion.training import Settings, fit

EPOCHS, STEPS, BATCH = 3, 667, 4
EACH = 50  # steps


class Towers(torch.nn.Module):
    """Two linear maps, which note the memory of the process."""

    def __init__(self):
        super().__init__()
        self.left, self.right = torch.nn.Linear(64, 32), torch.nn.Linear(64, 32)
        self.steps, self.seen = 0, []

    def forward(self, batch):
        self.steps += self.training
        if self.training and self.steps % EACH == 0:
            self.seen.append((self.steps, memory_now(), len(os.listdir("/proc/self/fd"))))
        return {"left": self.left(batch[0]), "right": self.right(batch[1])}


def main():
    torch.set_num_threads(1)
    rows = torch.randn(STEPS * BATCH, 64)
    settings = Settings(
        epochs=EPOCHS, batch_size=BATCH, learning_rate=0.01, num_workers=2, save_every=200
    )
    model = Towers()
    with tempfile.TemporaryDirectory() as folder:
        fit(
            model,
            lambda outputs: nce(outputs["left"], outputs["right"]),
            torch.utils.data.TensorDataset(rows, rows + 0.1),
            settings,
            evaluate=lambda model: {"score": 0.0},
            folder=Path(folder) / "run",
        )
    print(json.dumps(model.seen))


if __name__ == "__main__":
    main()
