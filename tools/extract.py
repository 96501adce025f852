"""Extract features of the pictures and the sound of videos into a feature store."""

import sys

from fusion.commands.arguments import Parser, positive, seconds, share
from fusion.commands.errors import run
from fusion.data.features.problems import MAX_BAD
from fusion.extract.job import extract
from fusion.extract.settings import Features

EXAMPLES = """examples:
  python tools/extract.py films/ --out features
  python tools/extract.py films/ --out features --captions films/ --features-3d r3d_18
  python tools/extract.py films/ --out features --weights-3d resnext101.pth
  python tools/extract.py a.mp4 b.mkv --out features --features-2d none --features-3d none
  torchrun --nproc_per_node 4 tools/extract.py films/ --out features   # four GPUs
  RANK=3 WORLD_SIZE=10 python tools/extract.py films/ --out features   # 1 of 10

A run that was stopped goes on when you give the same command again. report.txt in the store has
the outcome of each file: ok, partial (a part of the film is missing) or failed. The defaults are
the networks of HowTo100M's features. 3D networks: resnext101, s3d; and of torchvision r3d_18,
mc3_18, r2plus1d_18, tv_s3d, mvit_v1_b, mvit_v2_s, swin3d_t, swin3d_s, swin3d_b.

Exit codes: 0, at least one file is in the store; 1, no file is; 2, an error in the command or in a
file that it names; 130 and 143, stopped.
"""


def main() -> None:
    """Read the command line and extract."""
    parser = Parser(description=__doc__, epilog=EXAMPLES)
    add = parser.add_argument
    add("videos", nargs="+", metavar="VIDEOS", help="media files, and folders of media files")
    add("--out", required=True, metavar="STORE", help="folder of the feature store")
    add("--captions", metavar="PATH", help=".csv or .json file, or a folder of .vtt, .srt, .csv")
    default = Features()
    for field, what in (("2d", "pictures, a model of timm"), ("3d", "motion, see below")):
        name = getattr(default, f"features_{field}")
        text = f"network for {what}, or none (default: {name})"
        add(f"--features-{field}", metavar="NAME", default=name, help=text)
        text = f"file of the weights of the {field} network (default: downloaded, if published)"
        add(f"--weights-{field}", metavar="FILE", help=text)
    add("--random-weights", action="store_true", help="to try things out: meaningless features")
    add("--no-audio", action="store_true", help="no spectrograms of the sound")
    text = "largest share of captions that may be bad (default: 0.05)"
    add("--max-bad", type=share, default=MAX_BAD, metavar="SHARE", help=text)
    add("--root", metavar="FOLDER", help="names of videos are relative to it")
    text = "programs that decode (default: 1; GPU: up to 8)"
    add("--workers", type=positive, metavar="N", help=text)
    text = "wait so long for the next piece of a file (default: 60)"
    add("--time-limit", type=seconds, default=60.0, metavar="SECONDS", help=text)
    words = vars(parser.parse_args())
    names = ("features_2d", "features_3d", "weights_2d", "weights_3d", "random_weights")
    features = Features(**{n: words.pop(n) for n in names}, audio=not words.pop("no_audio"))
    run(lambda: sys.exit(extract(features=features, **words).exit_code))


if __name__ == "__main__":
    main()
