"""Compare fast and plain implementations, measured in turn in one process."""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the plain losses are part of the tests

import torch

from fusion.commands.errors import run
from tools.benchmarks import evaluate, loss, memory, step, store

EXAMPLES = """examples:
  python tools/benchmark.py step                      # whole step of the paper's model
  python tools/benchmark.py step --no-davenet --fill 0.45
  python tools/benchmark.py step --precision bf16 --batch 2240 --profile     # on a GPU
  python tools/benchmark.py loss
  python tools/benchmark.py loss --kind mcn --width 64
  python tools/benchmark.py evaluate --size small
  python tools/benchmark.py memory --chunk 128
  python tools/benchmark.py store

The last line of the output is JSON.
"""


def parse(words=None):
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="{step,loss,evaluate,memory,store}"
    )
    for name, help in [
        ("step", "forward pass, loss and backward pass of EAO"),
        ("loss", "one contrastive term, or the loss of MCN"),
        ("evaluate", "embedding and ranking"),
        ("memory", "a step in chunks: peak memory against the batch size"),
        ("store", "random clips read from a feature store and from whole files"),
    ]:
        command = commands.add_parser(name, help=help)
        command.add_argument("--repeats", type=_positive, default=5, help="rounds (default: 5)")
        if name == "memory":
            _add_memory(command)
            continue
        if name == "store":
            _add_store(command)
            continue
        default = {"step": 12, "loss": 16384, "evaluate": 64}[name]
        text = f"clips at a time (default: {default})"
        command.add_argument("--batch", type=_positive, default=default, help=text)
        if name == "loss":
            command.add_argument(
                "--width",
                type=_positive,
                default=512,
                help="width of the embeddings (default: 512)",
            )
            text = "one NCE term, or the whole loss of MCN (default: nce)"
            command.add_argument("--kind", choices=["nce", "mcn"], default="nce", help=text)
            continue
        sizes = {"choices": ["paper", "small", "tiny"], "default": "paper"}
        command.add_argument("--size", help="width of the model (default: paper)", **sizes)
        command.add_argument(
            "--fill",
            type=float,
            default=1.0,
            help="share of text tokens in use, the rest is padding (default: 1)",
        )
        command.add_argument(
            "--no-davenet", action="store_true", help="start from audio tokens, without DAVEnet"
        )
        command.add_argument("--precision", choices=["no", "bf16"], default="no", help="autocast")
        if name == "evaluate":
            command.add_argument(
                "--gallery", type=_positive, default=10_000, help="clips to rank (default: 10000)"
            )
        else:
            command.add_argument(
                "--compile", action="store_true", help="also measure with torch.compile"
            )
            command.add_argument(
                "--channels-last",
                action="store_true",
                help="also measure DAVEnet with channels last",
            )
            command.add_argument("--profile", action="store_true", help="print a profile")
    arguments = parser.parse_args(words)
    if not 0 < getattr(arguments, "fill", 1) <= 1:
        parser.error(f"--fill must be above 0 and at most 1; got {arguments.fill}")
    return arguments


def _add_memory(command):
    command.add_argument(
        "--size",
        choices=["paper", "small", "tiny"],
        default="tiny",
        help="width of the model (default: tiny)",
    )
    command.add_argument(
        "--chunk", type=_positive, default=64, help="clips in a chunk (default: 64)"
    )
    text = "how often to double the batch, beginning with one chunk (default: 4)"
    command.add_argument("--doublings", type=_at_least_two, default=4, help=text)


def _add_store(command):
    command.add_argument("--videos", type=_positive, default=50, help="videos (default: 50)")
    command.add_argument(
        "--seconds", type=_positive, default=390, help="length of a video (default: 390)"
    )
    text = "clips of each video in an epoch; three epochs are loaded (default: 500)"
    command.add_argument("--clips-per-video", type=_positive, default=500, help=text)


def _positive(word):
    number = int(word)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1; got {number}")
    return number


def _at_least_two(word):
    if (number := _positive(word)) < 2:
        raise argparse.ArgumentTypeError("must be at least 2: one chunk is the whole step")
    return number


def main():
    """Measure and print."""
    arguments = parse()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    subjects = {"step": step, "loss": loss, "evaluate": evaluate}
    subject = (subjects | {"memory": memory, "store": store})[arguments.command]
    result = {"command": arguments.command, "threads": torch.get_num_threads()}
    result["device"] = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    result |= {"torch": torch.__version__} | subject.run(arguments, device)
    for key, value in result.items():
        print(f"{key:>20}  {value}")
    print(json.dumps(result))


if __name__ == "__main__":
    run(main)
