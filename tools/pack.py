"""Pack published features into a feature store, from which training reads single clips.

``verify`` checks all bytes of a feature store or a caption store.
"""

from pathlib import Path

from fusion.commands.arguments import Parser
from fusion.commands.errors import run
from fusion.commands.pack import pack_howto100m, pack_pickle, verify

EXAMPLES = """examples:
  python tools/pack.py howto100m DATA_ROOT --out STORE
  torchrun --nproc_per_node 8 tools/pack.py howto100m DATA_ROOT --out STORE --features s3d
  python tools/pack.py pickle DATA_ROOT/msrvtt/resnet/msrvtt_jsfusion_test.pkl --out STORE
  python tools/pack.py verify STORE

What is in the store already is skipped, so the same command goes on where it was stopped. Train
from it by data.store=STORE.
"""


def main() -> None:
    """Read the command line and pack."""
    parser = Parser(description=__doc__, epilog=EXAMPLES)
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
    arguments = parser.parse_args()
    if arguments.kind == "verify":
        run(lambda: verify(arguments.source))
        return
    if arguments.out is None:
        parser.error("the following arguments are required: --out")
    pack = pack_howto100m if arguments.kind == "howto100m" else pack_pickle
    run(lambda: pack(Path(arguments.source), arguments.out, arguments.features))


if __name__ == "__main__":
    main()
