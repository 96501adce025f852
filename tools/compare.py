"""Compare trained runs: one table and one picture of all methods, on the same test clips."""

from fusion.commands.arguments import Parser
from fusion.commands.compare import compare
from fusion.commands.errors import run

EXAMPLES = """examples:
  python tools/compare.py runs/eao runs/mcn
  python tools/compare.py runs/eao-0 runs/eao-1 runs/mcn-0 runs/mcn-1 --out eao_and_mcn
  python tools/compare.py MCN=runs/mcn "EAO, no pairs=runs/no_pairs" --baseline MCN

Runs whose configs differ in the seed alone are one method. Means over its seeds are compared.
"""


def main() -> None:
    """Read the command line and compare."""
    parser = Parser(description=__doc__, epilog=EXAMPLES)
    parser.add_argument(
        "runs",
        nargs="*",
        default=[],
        metavar="RUN",
        help="folder of a run (output=FOLDER of tools/train.py), or NAME=FOLDER to name its method;"
        " two or more",
    )
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        default="comparison",
        help="folder for comparison.html, .svg and .json (default: comparison)",
    )
    parser.add_argument("--json", metavar="FILE", help="also write the numbers to FILE")
    parser.add_argument(
        "--baseline",
        metavar="RUN",
        help="run, or name of a method, with which the others are compared (default: the first)",
    )
    arguments = parser.parse_intermixed_args()
    run(lambda: compare(arguments.runs, arguments.out, arguments.json, arguments.baseline))


if __name__ == "__main__":
    main()
