"""Compare trained runs: a table and a picture of methods on the same test clips."""

import argparse

from fusion.commands.compare import compare
from fusion.commands.errors import run

EXAMPLES = """examples:
  python tools/compare.py runs/eao runs/mcn
  python tools/compare.py runs/eao-0 runs/eao-1 runs/mcn-0 runs/mcn-1 --out eao_and_mcn
  python tools/compare.py MCN=runs/mcn "EAO, no pairs=runs/no_pairs" --baseline MCN

Runs whose configs differ only in the seed are one method; means over its seeds are compared.
"""


def main() -> None:
    """Read the command line and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="two or more folders that tools/train.py wrote; NAME=FOLDER gives the method a name",
    )
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        default="comparison",
        help="where comparison.html, .svg and .json are written (default: comparison)",
    )
    parser.add_argument("--json", metavar="FILE", help="write the numbers there as well")
    parser.add_argument(
        "--baseline",
        metavar="RUN",
        help="run, or name of a method, that the others are tested against (default: the first)",
    )
    arguments = parser.parse_intermixed_args()
    run(lambda: compare(arguments.runs, arguments.out, arguments.json, arguments.baseline))


if __name__ == "__main__":
    main()
