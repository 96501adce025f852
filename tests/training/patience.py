"""Training whose processes find different results: only the second one's get better.

torchrun --nproc_per_node 2 tests/training/patience.py
"""

import itertools
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from fusion.distributed import rank
from fusion.training import Settings, fit


class Line(torch.nn.Module):
    """One weight."""

    def __init__(self):
        super().__init__()
        self.line = torch.nn.Linear(1, 1)

    def forward(self, x):
        """Map (B, 1) numbers to as many."""
        return {"y": self.line(x)}


if __name__ == "__main__":
    epochs = itertools.count()
    rows = fit(
        Line(),
        lambda outputs: outputs["y"].square().mean(),
        list(torch.ones(4, 1)),
        Settings(epochs=5, batch_size=4, learning_rate=0.1, patience=1),
        evaluate=lambda model: {"score": rank() * next(epochs)},
    )
    print(max(row["epoch"] for row in rows))
