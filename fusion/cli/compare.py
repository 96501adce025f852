"""Compare trained runs, or indexes of the same films: one table and one picture of all methods."""

from __future__ import annotations

import argparse

EXAMPLES = """examples:
  {prog} runs/eao runs/mcn
  {prog} runs/eao-0 runs/eao-1 runs/mcn-0 runs/mcn-1 --out eao_and_mcn
  {prog} MCN=runs/mcn "EAO, no pairs=runs/no_pairs" --baseline MCN
  {prog} zero_shot.json runs/msrvtt/finetune           # zero_shot.json: evaluate --json
  {prog} runs/eao/best runs/eao/last                   # checkpoints are evaluated first
  {prog} eao.index clip.index                          # of the same films with captions
  {prog} eao.index --captions known.csv                # windows that do not know the times

Runs whose configs differ in the seed alone are one method. Means over its seeds are compared.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="folder of a run (output=FOLDER in training), a checkpoint, a file of evaluate --json,"
        " or NAME=one of them to name its method; two or more. Or indexes of fusion index, one or"
        " more",
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
    text = "questions for indexes that were cut into windows: captions of their films, with times"
    parser.add_argument("--captions", metavar="FILE", help=text)
    text = "import and run the user's own parts that a checkpoint names"
    parser.add_argument("--trust", action="store_true", help=text)


def call(given: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Compare."""
    from fusion.commands.compare import compare
    from fusion.commands.errors import run

    words = (given.runs, given.out, given.json, given.baseline, given.trust, given.captions)
    run(lambda: compare(*words))
