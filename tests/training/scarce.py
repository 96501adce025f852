"""Two steps of 128 clips in a process whose memory is limited after it has begun.

    python tests/training/scarce.py MIB [cuda]

prints the chunk at the end and the losses as JSON. The limit is on the memory of the process or,
with "cuda", on its share of that of the device; 0 for none.
"""

import json
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.training import cuts
from tools.benchmarks.measure import limit_memory


class Wide(torch.nn.Module):
    """Needs 1 MB for each word, and does nothing."""

    def __init__(self, projection):
        super().__init__()
        self.projection, self.wide = projection, torch.nn.Linear(6, 250_000)

    def forward(self, words):
        return self.projection(words) + 0 * self.wide(words).mean()


def main():
    limit, cuda = int(sys.argv[1]), "cuda" in sys.argv
    cuts.BATCH, cuts.STEPS = 128, 2
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        trainer = cuts.make_trainer(Path(folder), "nothing", "groups", "float32", cpu=not cuda)
        projections = trainer.unwrapped.token_projections
        projections["text"] = Wide(projections["text"]).to(trainer.accelerator.device)
        trainer.found_chunk = True  # a probe would see that memory is short
        losses, step = [], trainer.step

        def take(batch):
            if limit and not losses:
                limit_memory(limit << 20, cuda)
            value, terms = step(batch)
            losses.append(value.item())
            return value, terms

        trainer.step = take
        trainer.fit()
        print(json.dumps({"chunk": trainer.chunk.size, "losses": losses}))


if __name__ == "__main__":
    main()
