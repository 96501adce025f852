"""Dropout by clip, forward and backward, beside torch's, whose choices depend on the batch."""

import torch
import torch.nn.functional as F

from fusion.models.dropout import ClipDropout
from fusion.tokens import Tokens
from tools.benchmarks.measure import compare_times, saved_bytes
from tools.benchmarks.models import TEXT_TOKENS, WIDTHS

PROBABILITY = 0.1


def run(arguments, device):
    """Measure time and memory of both."""
    dtype = torch.bfloat16 if arguments.precision == "bf16" else torch.float32
    rows, width = arguments.batch * TEXT_TOKENS, WIDTHS[arguments.size]
    values = torch.randn(rows, width, device=device).to(dtype).requires_grad_()
    gradient = torch.randn(rows, width, device=device).to(dtype)
    lengths = torch.full((arguments.batch,), TEXT_TOKENS)
    tokens = Tokens(values, lengths.to(device), lengths)
    seeds = torch.arange(arguments.batch, device=device)
    dropout = ClipDropout(PROBABILITY).train()
    forward = {
        "plain": lambda: F.dropout(values, PROBABILITY),
        "by_clip": lambda: dropout(tokens, seeds).values,
    }

    def both(way):
        values.grad = None
        way().backward(gradient)

    ways = {name: (lambda way=way: both(way)) for name, way in forward.items()}
    seconds, ratios = compare_times(ways, arguments.repeats, device)
    kept = {name: saved_bytes(way, [values]) for name, way in forward.items()}
    return {
        "values": values.numel(),
        "precision": arguments.precision,
        "seconds": seconds,
        "ratio": ratios,
        "time_in_units_of_torch": 1 / ratios["by_clip"],
        "kept_in_units_of_input": {name: size / values.nbytes for name, size in kept.items()},
    }
