"""Compare fast and plain implementations, measured in turn in one process."""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the plain losses are part of the tests

import torch

from fusion.commands.arguments import Parser, positive
from fusion.commands.errors import run
from tools.benchmarks import (
    dropout,
    evaluate,
    gallery,
    localise,
    loss,
    memory,
    plan,
    reading,
    safety,
    scaling,
    scarce,
    search,
    step,
    store,
    text,
    video,
    watch,
)

EXAMPLES = """examples:
  python tools/benchmark.py step                      # whole step of the paper's model
  python tools/benchmark.py step --no-davenet --fill 0.45
  python tools/benchmark.py step --precision bf16 --batch 2240 --profile     # on a GPU
  python tools/benchmark.py loss
  python tools/benchmark.py loss --kind mcn --width 64
  python tools/benchmark.py evaluate --size small
  python tools/benchmark.py gallery --clips 300 --captions 6000 --against ../main
  python tools/benchmark.py memory --chunk 128
  python tools/benchmark.py safety --size small --batch 32
  python tools/benchmark.py dropout --precision bf16
  python tools/benchmark.py text                      # CLIP's text encoder in a step
  python tools/benchmark.py scaling --processes 1 2 4 8
  python tools/benchmark.py scarce --size paper --batch 16384 --precision bf16   # on a GPU
  python tools/benchmark.py store
  python tools/benchmark.py search --clips 1000 100000 1000000       # 2.5 GB of disk
  python tools/benchmark.py video --size 224 --batch 8                       # on a GPU
  python tools/benchmark.py reading --lengths 1 4 16
  python tools/benchmark.py watch --minutes 1 10
  python tools/benchmark.py plan
  python tools/benchmark.py localise runs/eao --hours 0.5 1 2

The last line of the output is JSON.
"""


def parse(words=None):
    """Read the command line."""
    parser = Parser(description=__doc__, epilog=EXAMPLES)
    names = ",".join(SUBJECTS)
    commands = parser.add_subparsers(dest="command", required=True, metavar=f"{{{names}}}")
    for name, (_, add_options, help) in SUBJECTS.items():
        command = commands.add_parser(name, help=help)
        command.add_argument("--repeats", type=positive, default=5, help="rounds (default: 5)")
        add_options(command)
    return parser.parse_args(words)


def _add_batch(command, default):
    text = f"clips at a time (default: {default})"
    command.add_argument("--batch", type=positive, default=default, help=text)


def _add_size(command, default):
    text = f"width of the model (default: {default})"
    command.add_argument("--size", choices=["paper", "small", "tiny"], default=default, help=text)


def _add_model(command):
    _add_size(command, "paper")
    text = "share of text tokens in use, the rest is padding (default: 1)"
    command.add_argument("--fill", type=_fill, default=1.0, help=text)
    text = "start from audio tokens, without DAVEnet"
    command.add_argument("--no-davenet", action="store_true", help=text)
    command.add_argument("--precision", choices=["no", "bf16"], default="no", help="autocast")


def _add_step(command):
    _add_batch(command, 12)
    _add_model(command)
    text = "also measure with torch.compile"
    command.add_argument("--compile", action="store_true", help=text)
    text = "also measure DAVEnet with channels last"
    command.add_argument("--channels-last", action="store_true", help=text)
    command.add_argument("--profile", action="store_true", help="print a profile")


def _add_loss(command):
    _add_batch(command, 16384)
    text = "width of the embeddings (default: 512)"
    command.add_argument("--width", type=positive, default=512, help=text)
    text = "one NCE term, or the whole loss of MCN (default: nce)"
    command.add_argument("--kind", choices=["nce", "mcn"], default="nce", help=text)


def _add_evaluate(command):
    _add_batch(command, 64)
    _add_model(command)
    text = "clips to rank (default: 10000)"
    command.add_argument("--gallery", type=positive, default=10_000, help=text)


def _add_gallery(command):
    command.add_argument("--clips", type=positive, default=3350, help="clips (default: 3350)")
    command.add_argument("--captions", type=positive, help="captions (default: one for each clip)")
    text = "width of the embeddings, and of EAO's tokens (default: 512)"
    command.add_argument("--width", type=positive, default=512, help=text)
    text = "what is embedded (default: t v a tv ta va)"
    every = ["t", "v", "a", "tv", "ta", "va"]
    command.add_argument("--combinations", nargs="+", default=every, help=text)
    text = "a linear layer instead of EAO: measures ranking and memory"
    command.add_argument("--simple", action="store_true", help=text)
    text = "only rank so many texts among the clips, whose embeddings are in a file"
    command.add_argument("--queries", type=positive, help=text)
    command.add_argument("--processes", type=positive, default=1, help="processes (default: 1)")
    text = "threads of a process (default: the cores are divided)"
    command.add_argument("--threads", type=positive, help=text)
    text = "embed and rank on the GPU (default: on the CPU, whatever there is)"
    command.add_argument("--gpu", action="store_true", help=text)
    text = "processes that read the clips (default: 0, the one that embeds)"
    command.add_argument("--workers", type=int, default=0, help=text)
    text = "folder of another version, such as a git worktree, that is measured in turn"
    command.add_argument("--against", help=text)


def _add_memory(command):
    _add_size(command, "tiny")
    text = "clips in a chunk (default: 64)"
    command.add_argument("--chunk", type=positive, default=64, help=text)
    text = "how often to double the batch, beginning with one chunk (default: 4)"
    command.add_argument("--doublings", type=_at_least_two, default=4, help=text)


def _add_safety(command):
    _add_batch(command, 32)
    _add_size(command, "small")


def _add_dropout(command):
    _add_batch(command, 256)
    _add_size(command, "small")
    command.add_argument("--precision", choices=["no", "bf16"], default="no", help="of the tokens")


def _add_text(command):
    _add_batch(command, 64)
    text = "width of the text encoder that is measured (default: 128); counted is CLIP's"
    command.add_argument("--width", type=positive, default=128, help=text)


def _add_scaling(command):
    _add_batch(command, 64)
    _add_size(command, "tiny")
    text = "numbers of processes (default: 1 2 4 8)"
    command.add_argument("--processes", type=positive, nargs="+", default=[1, 2, 4, 8], help=text)
    text = "clips in memory at a time on a process (default: its share)"
    command.add_argument("--chunk", type=positive, help=text)
    text = "send gradients after the last chunk, not during it"
    command.add_argument("--plain", action="store_true", help=text)
    text = "send gradients in bf16"
    command.add_argument("--bf16-gradients", action="store_true", help=text)


def _add_scarce(command):
    _add_batch(command, 512)
    _add_size(command, "tiny")
    command.add_argument("--precision", choices=["no", "bf16"], default="no", help="autocast")
    text = "MiB that the first step may take beside what there is before it (default: no limit)"
    command.add_argument("--limit-mib", type=positive, help=text)


def _add_store(command):
    command.add_argument("--videos", type=positive, default=50, help="videos (default: 50)")
    text = "length of a video (default: 390)"
    command.add_argument("--seconds", type=positive, default=390, help=text)
    text = "clips of each video in an epoch; three epochs are loaded (default: 500)"
    command.add_argument("--clips-per-video", type=positive, default=500, help=text)


def _add_search(command):
    text = "clips of each index (default: 1000 100000)"
    command.add_argument("--clips", type=positive, nargs="+", default=[1000, 100_000], help=text)
    text = "width of the embeddings (default: 512)"
    command.add_argument("--width", type=positive, default=512, help=text)
    text = "questions of each of two kinds (default: 100)"
    command.add_argument("--queries", type=positive, default=100, help=text)
    text = "where indexes are made, and removed (default: the temporary folder)"
    command.add_argument("--folder", help=text)


def _add_video(command):
    _add_batch(command, 1)
    text = "ResNet of timm inside TSM, or orders: that of configs/tsm.yaml (default: resnet50)"
    command.add_argument("--network", default="resnet50", help=text)
    text = "pixels of the side of a frame of the network (default: 64)"
    command.add_argument("--size", type=positive, default=64, help=text)


def _add_reading(command):
    text = "length of a film in seconds (default: 60)"
    command.add_argument("--seconds", type=positive, default=60, help=text)
    text = "lengths of clips in seconds (default: 1 4 16)"
    command.add_argument("--lengths", type=positive, nargs="+", default=[1, 4, 16], help=text)
    text = "clips read of each film in a round (default: 10)"
    command.add_argument("--clips", type=positive, default=10, help=text)
    text = f"films of each of two classes to train on (default: {reading.FILMS})"
    command.add_argument("--films", type=positive, default=reading.FILMS, help=text)


def _add_plan(command):
    _add_batch(command, 16)


def _add_watch(command):
    text = "lengths of films in minutes (default: 1 10)"
    command.add_argument("--minutes", type=positive, nargs="+", default=[1, 10], help=text)
    text = "network inside TSM (default: mobilenetv2_100)"
    command.add_argument("--network", default="mobilenetv2_100", help=text)
    text = "pixels of the side of a frame (default: 112)"
    command.add_argument("--size", type=positive, default=112, help=text)
    text = "frames a second (default: 8)"
    command.add_argument("--fps", type=positive, default=8, help=text)


def _add_localise(command):
    command.add_argument("run", help="folder of a run on the built-in corpus")
    text = "lengths of the films that are made (default: 0.1 0.5)"
    command.add_argument("--hours", type=float, nargs="+", default=[0.1, 0.5], help=text)
    text = "training films of the corpus whose films are joined (default: all)"
    command.add_argument("--films", type=positive, help=text)


def _fill(word):
    if not 0 < float(word) <= 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 1; got {word}")
    return float(word)


def _at_least_two(word):
    if (number := positive(word)) < 2:
        raise argparse.ArgumentTypeError("must be at least 2: one chunk is the whole step")
    return number


# Of each subject: its module, its options, its line in the help
SUBJECTS = {
    "step": (step, _add_step, "forward pass, loss and backward pass of EAO"),
    "loss": (loss, _add_loss, "one contrastive term, or the loss of MCN"),
    "evaluate": (evaluate, _add_evaluate, "embedding and ranking"),
    "gallery": (gallery, _add_gallery, "evaluation of many clips: this version and another"),
    "memory": (memory, _add_memory, "a step in chunks: peak memory against the batch size"),
    "safety": (safety, _add_safety, "guards of a step and manifests of checkpoints"),
    "dropout": (dropout, _add_dropout, "dropout by clip, beside that of torch"),
    "text": (text, _add_text, "CLIP's text encoder: sentence by sentence, and in batches"),
    "scaling": (scaling, _add_scaling, "1, 2, 4, 8 processes: clips/s, bytes, waits, shares"),
    "scarce": (scarce, _add_scarce, "steps whose batch does not fit into memory"),
    "store": (store, _add_store, "random clips read from a feature store and from whole files"),
    "video": (video, _add_video, "TSM, the network of single frames and 3D networks"),
    "reading": (reading, _add_reading, "clips read from films; how long training waits for them"),
    "watch": (watch, _add_watch, "films classified while they are read: latency and memory"),
    "plan": (plan, _add_plan, "times of steps against those that fusion plan predicts"),
    "localise": (localise, _add_localise, "steps in films of hours: time and memory"),
    "search": (search, _add_search, "questions to an index: time, recall, memory"),
}


def main():
    """Measure and print."""
    arguments = parse()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    subject = SUBJECTS[arguments.command][0]
    result = {"command": arguments.command, "threads": torch.get_num_threads()}
    result["device"] = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    result |= {"torch": torch.__version__} | subject.run(arguments, device)
    for key, value in result.items():
        print(f"{key:>20}  {value}")
    print(json.dumps(result))


if __name__ == "__main__":
    run(main)
