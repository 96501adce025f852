"""Pack published features into a feature store, from which training reads single clips.

``verify`` checks all bytes of a feature store or a caption store.
"""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLES = """examples:
  {prog} howto100m DATA_ROOT --out STORE
  torchrun --nproc_per_node 8 {launch} howto100m DATA_ROOT --out STORE --features s3d
  {prog} pickle DATA_ROOT/msrvtt/resnet/msrvtt_jsfusion_test.pkl --out STORE
  {prog} verify STORE

What is in the store already is skipped, so the same command goes on where it was stopped. Train
from it by data.store=STORE.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "kind", choices=["howto100m", "pickle", "verify"], help="what to pack, or verify"
    )
    parser.add_argument(
        "source", help="folder with howto/features and so on; a pickle of clips; a store to verify"
    )
    parser.add_argument("--out", type=Path, help="folder of the store; not for verify")
    parser.add_argument(
        "--features",
        default="resnet",
        choices=["resnet", "s3d", "clip"],
        help="which features (default: resnet)",
    )


def call(given: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Pack or verify."""
    from fusion.commands.errors import run
    from fusion.commands.pack import pack_howto100m, pack_pickle, verify

    if given.kind == "verify":
        run(lambda: verify(given.source))
        return
    if given.out is None:
        parser.error("the following arguments are required: --out")
    pack = pack_howto100m if given.kind == "howto100m" else pack_pickle
    run(lambda: pack(Path(given.source), given.out, given.features))
