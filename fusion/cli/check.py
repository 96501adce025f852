"""List every mistake of a caption file, and what is guessed about it."""

from __future__ import annotations

import argparse
import sys

EXAMPLES = """examples:
  {prog} captions.csv
  {prog} captions.csv --videos films/

Exit codes: 0, the file can be used; 1, it has mistakes.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("file", help="caption file, or a folder of caption files")
    parser.add_argument(
        "--videos", metavar="FOLDER", help="where the videos are (default: beside the file)"
    )


def call(given: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Check."""
    from fusion.commands.check import check_captions
    from fusion.commands.errors import run

    run(lambda: sys.exit(check_captions(given.file, given.videos)))
