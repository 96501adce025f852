"""Pack published features into a feature store, from which training reads single clips."""

import argparse
from pathlib import Path

from fusion.commands.errors import run
from fusion.commands.pack import pack_howto100m, pack_pickle

EXAMPLES = """examples:
  python tools/pack.py howto100m DATA_ROOT --out STORE
  torchrun --nproc_per_node 8 tools/pack.py howto100m DATA_ROOT --out STORE --features s3d
  python tools/pack.py pickle DATA_ROOT/msrvtt/resnet/msrvtt_jsfusion_test.pkl --out STORE

Videos that are in the store are skipped, so the same command continues a stopped job. Train from
the store with data.store=STORE.
"""


def main() -> None:
    """Read the command line and pack."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=["howto100m", "pickle"], help="what to pack")
    parser.add_argument(
        "source", type=Path, help="folder with howto/features and the like, or a pickle of clips"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the store")
    parser.add_argument(
        "--features",
        default="resnet",
        choices=["resnet", "s3d", "clip"],
        help="which features (default: resnet)",
    )
    arguments = parser.parse_args()
    pack = pack_howto100m if arguments.kind == "howto100m" else pack_pickle
    run(lambda: pack(arguments.source, arguments.out, arguments.features))


if __name__ == "__main__":
    main()
