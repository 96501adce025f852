"""Extract features of the pictures and the sound of videos into a feature store."""

from __future__ import annotations

import argparse
import sys

from fusion.commands.arguments import positive, seconds, share

EXAMPLES = """examples:
  {prog} films/ --out features
  {prog} films/ --out features --captions films/ --features-3d r3d_18
  {prog} films/ --out features --weights-3d resnext101.pth
  {prog} a.mp4 b.mkv --out features --features-2d none --features-3d none
  {prog} films/ --out features --features-2d hf:CLIP --features-audio hf:WHISPER
  torchrun --nproc_per_node 4 {launch} films/ --out features           # four GPUs
  RANK=3 WORLD_SIZE=10 {prog} films/ --out features           # 1 of 10
  {prog} films/ --out features --engine ray --ray-address head:6379

A run that was stopped goes on when you give the same command again. report.txt in the store has
the outcome of each file: ok, partial (a part of the film is missing) or failed. The defaults are
the networks of HowTo100M's features. 3D networks: resnext101, s3d; and of torchvision r3d_18,
mc3_18, r2plus1d_18, tv_s3d, mvit_v1_b, mvit_v2_s, swin3d_t, swin3d_s, swin3d_b.

Exit codes: 0, at least one file is in the store; 1, no file is; 2, an error in the command or in a
file that it names; 130 and 143, stopped.
"""
DEFAULTS = {
    "2d": "resnet152.tv_in1k",
    "3d": "resnext101",
    "audio": "none",
}  # of fusion.extract.settings.Features


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    option = parser.add_argument
    option("videos", nargs="+", metavar="VIDEOS", help="media files, and folders of media files")
    option("--out", required=True, metavar="STORE", help="folder of the feature store")
    option("--captions", metavar="PATH", help=".csv or .json file, or a folder of .vtt, .srt, .csv")
    kinds = {
        "2d": "pictures, a model of timm, or hf:FOLDER_OR_NAME, one of transformers",
        "3d": "motion, see below",
        "audio": "sound, hf:FOLDER_OR_NAME, a model of transformers; makes the field sound",
    }
    for field, what in kinds.items():
        name, dest = DEFAULTS[field], "sound" if field == "audio" else field
        text = f"network for {what}, or none (default: {name})"
        option(
            f"--features-{field}", metavar="NAME", dest=f"features_{dest}", default=name, help=text
        )
        text = f"file of the weights of the {field} network (default: downloaded, if published)"
        option(f"--weights-{field}", metavar="FILE", dest=f"weights_{dest}", help=text)
    option("--random-weights", action="store_true", help="to try things out: meaningless features")
    option("--no-audio", action="store_true", help="no spectrograms of the sound")
    text = "largest share of captions that may be bad (default: 0.05)"
    option("--max-bad", type=share, default=0.05, metavar="SHARE", help=text)
    option("--root", metavar="FOLDER", help="names of videos are relative to it")
    text = "ray: on several machines, or in several processes of this one; see docs/cluster.md"
    option("--engine", choices=("ray",), metavar="NAME", help=text)
    text = "HOST:PORT of Ray's head (default: RAY_ADDRESS; without it this machine alone)"
    option("--ray-address", metavar="ADDRESS", help=text)
    text = "programs that decode (default: 1; GPU: up to 8); with Ray: films at a time"
    option("--workers", type=positive, metavar="N", help=text)
    text = "wait so long for the next piece of a file (default: 60)"
    option("--time-limit", type=seconds, default=60.0, metavar="SECONDS", help=text)


def call(given: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Extract."""
    from fusion.commands.errors import run
    from fusion.extract.job import extract
    from fusion.extract.ray_cluster import Cluster
    from fusion.extract.settings import Features

    if given.ray_address and not given.engine:
        parser.error("--ray-address is for --engine ray")
    words = vars(given)
    kinds = ("2d", "3d", "sound")
    names = [f"{what}_{field}" for what in ("features", "weights") for field in kinds]
    names.append("random_weights")
    features = Features(**{n: words.pop(n) for n in names}, audio=not words.pop("no_audio"))
    engine, address = words.pop("engine"), words.pop("ray_address")
    cluster = Cluster(address, words["workers"]) if engine else None
    run(lambda: sys.exit(extract(features=features, cluster=cluster, **words).exit_code))
