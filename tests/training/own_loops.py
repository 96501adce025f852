"""The example of docs/own_loop.md and a step of exact_backward, on as many processes as started.

torchrun --nproc_per_node 2 tests/training/own_loops.py OUTPUT.pt
"""

import re
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from fusion.distributed import own_rows, rank, world_size
from fusion.losses import nce
from fusion.training import exact_backward

ROOT = Path(__file__).parents[2]
EXAMPLES = re.findall(
    r"```python\n(.*?)```", (ROOT / "docs/own_loop.md").read_text(encoding="utf-8"), re.DOTALL
)


def train():
    """Run the first example and give its names."""
    torch.manual_seed(0)
    names = {"__name__": "example"}
    exec(EXAMPLES[0], names)
    return names


def step(model, pairs):
    """Take the gradient of 24 pairs, of which this process has its share."""
    torch.manual_seed(1)
    model = model().double()
    model.unused = torch.nn.Linear(2, 2).double()  # by the model, and by the loss of one process
    mine = range(24)[own_rows(24 // world_size())]
    batch = {
        name: torch.stack([pairs[i][name] for i in mine]).double() for name in ("photo", "caption")
    }

    def loss(rows):
        extra = model.unused.weight.sum() if rank() == 0 else 0.0
        return nce(rows["caption"], rows["photo"]) + extra

    exact_backward(model, loss, batch, chunk_size=5)
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    gradients["unused.weight"] = gradients["unused.weight"] * world_size()
    return gradients


if __name__ == "__main__":
    names = train()
    gradients = step(names["TwoTowers"], names["pairs"])
    if rank() == 0:
        weights = {name: w.detach() for name, w in names["model"].named_parameters()}
        torch.save({"weights": weights, "gradients": gradients}, sys.argv[1])
