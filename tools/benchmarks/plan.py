"""What ``fusion plan`` takes for granted: a step takes as long as its operations.

The first config of a method, in CPU seconds, predicts the steps of the others: more frames, other
widths, another depth. Once by operations alone, and once by operations, bytes and calls, whose
rates are measured beforehand (``fusion/plan/work.py``). A small network on a processor is not bound
by operations alone, so this is the hard case; a large one on a GPU is nearer to it.
"""

import statistics
import time

import torch

from fusion.commands.plan import count_config
from fusion.config import load_config
from fusion.plan.work import measure_rates
from fusion.report.layout import align
from fusion.tasks import make_task

WAYS = {"by_operations": "operations", "by_work": "operations, bytes, calls"}
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
    rates, rows = measure_rates(), {}
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
        rows |= {
            name: compare(counts, steps[first][1], arguments.batch, rates)
            | {"measured_cpu_seconds": medians[name]}
            for name, (_, counts) in steps.items()
        }
        for name in cases:
            for way in WAYS:
                predicted = rows[name][way] * medians[first]
                rows[name][way] = predicted / medians[name]
    lines = [["", "GFLOP a step", "CPU seconds", *(f"by {WAYS[way]}" for way in WAYS)]]
    for name, row in rows.items():
        numbers = (row["gflop"], row["measured_cpu_seconds"], *(row[way] for way in WAYS))
        lines.append([name, *(f"{number:.3g}" for number in numbers)])
    print("predicted / measured\n" + "\n".join(align(lines, left=1)))
    return {"rates": rates._asdict(), "rows": rows}


def compare(counts, first, batch, rates):
    """Say how many times as long as the first config another should take, in both ways."""
    return {
        "gflop": batch * counts.step_flop / 1e9,
        "by_operations": counts.step_flop / first.step_flop,
        "by_work": counts.seconds(batch, rates) / first.seconds(batch, rates),
    }


def make_step(words, batch):
    """Make a function that takes a forward and a backward pass, and count what it does."""
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

    return step, counts
