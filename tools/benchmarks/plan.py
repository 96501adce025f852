"""What ``fusion plan`` takes for granted: a step takes as long as its operations.

The rate of the processor is that of the first config of a method, in CPU seconds, and predicts the
steps of the others: more frames, other widths, another depth. A small network on a processor is not
bound by operations alone, so this is the hard case; a large one on a GPU is nearer to it.
"""

import statistics
import time

import torch

from fusion.commands.plan import count_config
from fusion.config import load_config
from fusion.report.layout import align
from fusion.tasks import make_task

SLIM = "model.network={block: basic, layers: [1, 1, 1, 1], widths: "
CASES = {  # of each method the first one gives the rate
    "tsm": {
        "tsm": ["tsm"],
        "tsm, 16 frames": ["tsm", "data.frames=16"],
        "tsm, 96 x 96 pixels": ["tsm", "data.frame_size=108", "model.crop_size=96"],
        "tsm, twice as wide": ["tsm", f"{SLIM}[32, 64, 128, 192]}}"],
    },
    "eao": {
        "eao": ["eao"],
        "eao, two blocks": ["eao", "model.num_blocks=2"],
        "eao, twice as wide": ["eao", "model.token_dim=256", "model.embedding_dim=256"],
    },
}


def run(arguments, device):
    """Time steps in turn, and print what the rate of the first predicts of the others."""
    rows = {}
    for cases in CASES.values():
        steps = {name: make_step(words, arguments.batch) for name, words in cases.items()}
        seconds = {name: [] for name in cases}
        for turn in range(arguments.repeats + 1):
            for name, (step, _) in steps.items():
                before = time.process_time()
                step()
                if turn:
                    seconds[name].append(time.process_time() - before)
        medians = {name: statistics.median(its) for name, its in seconds.items()}
        first = next(iter(cases))
        rate = steps[first][1] / medians[first]
        for name, (_, flop) in steps.items():
            predicted = flop / rate
            rows[name] = {
                "gflop": flop / 1e9,
                "measured_cpu_seconds": medians[name],
                "predicted_by_measured": predicted / medians[name],
            }
    lines = [["", "GFLOP a step", "CPU seconds", "predicted / measured"]]
    for name, row in rows.items():
        numbers = (row["gflop"], row["measured_cpu_seconds"], row["predicted_by_measured"])
        lines.append([name, *(f"{number:.3g}" for number in numbers)])
    print("\n".join(align(lines, left=1)))
    return {"rows": rows}


def make_step(words, batch):
    """Make a function that takes a forward and a backward pass, and count its operations."""
    config = load_config(words[0], words[1:])
    counts, clip = count_config(config, 20)
    torch.manual_seed(0)
    model, loss = make_task(config).build()
    inputs = clip.batch(batch, "cpu")
    for tokens in inputs.values():
        if tokens.values.is_floating_point():
            tokens.values.normal_()
        else:
            tokens.values.random_(0, 256)
    for norm in model.train().modules():
        if hasattr(norm, "group"):
            norm.group = None
    given = {"seeds": torch.arange(batch)}
    if hasattr(loss, "combinations"):
        given["combinations"] = loss.combinations

    def step():
        model.zero_grad()
        torch.autograd.backward([rows.sum() for rows in model(inputs, **given).values()])

    return step, batch * counts.step_flop
