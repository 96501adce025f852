"""Extract features of videos, of their pictures and their sound, into a feature store."""

import argparse
import sys

from fusion.commands.errors import run
from fusion.extract.job import extract
from fusion.extract.settings import Features

EXAMPLES = """examples:
  python tools/extract.py films/ --out features
  python tools/extract.py films/ --out features --captions films/ --features-3d r3d_18
  python tools/extract.py films/ --out features --weights-3d resnext101.pth
  python tools/extract.py a.mp4 b.mkv --out features --features-2d none --features-3d none
  torchrun --nproc_per_node 4 tools/extract.py films/ --out features        four GPUs
  RANK=3 WORLD_SIZE=10 python tools/extract.py films/ --out features        one of ten machines

Stop it in any way and start it again: it goes on. report.txt in the store says what came out of
each file. 3D networks: resnext101, s3d; of torchvision r3d_18, mc3_18, r2plus1d_18, tv_s3d,
mvit_v1_b, mvit_v2_s, swin3d_t, swin3d_s, swin3d_b. The defaults are those of HowTo100M's features.

Exit codes: 0, at least one file is in the store; 1, none is; 2, a mistake in the command or in what
it names; 130 and 143, stopped.
"""


def main() -> None:
    """Read the command line and extract."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("videos", nargs="+", metavar="VIDEOS", help="files, and folders with files, of any kind")
    add("--out", required=True, metavar="STORE", help="folder of the feature store")
    add("--captions", metavar="PATH", help="folder of .vtt, .srt, .csv, or a .csv or .json file")
    default = Features()
    for field, what in (("2d", "pictures: a model of timm"), ("3d", "motion: see below")):
        name = getattr(default, f"features_{field}")
        text = f"network for {what}, or none (default: {name})"
        add(f"--features-{field}", metavar="NAME", default=name, help=text)
        text = f"file of its weights (default: downloaded, where the {field} network has any)"
        add(f"--weights-{field}", metavar="FILE", help=text)
    add("--random-weights", action="store_true", help="to try things out: meaningless features")
    add("--no-audio", action="store_true", help="no spectrograms of the sound")
    add("--root", metavar="FOLDER", help="name videos relative to it (default: what they share)")
    add(
        "--workers",
        type=int,
        metavar="N",
        help="decoding processes (default: 1; for a GPU up to 8)",
    )
    add("--time-limit", type=float, default=60.0, metavar="SECONDS", help="that a file may hang")
    words = vars(parser.parse_args())
    names = ("features_2d", "features_3d", "weights_2d", "weights_3d", "random_weights")
    features = Features(**{n: words.pop(n) for n in names}, audio=not words.pop("no_audio"))
    run(lambda: sys.exit(extract(features=features, **words).exit_code))


if __name__ == "__main__":
    main()
