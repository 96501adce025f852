"""Show what faults do to runs: a page of kills, signals, damaged and hostile files.

A folder without results gets them first: faults are injected into small runs on this machine.
"""

from __future__ import annotations

import argparse

EXAMPLES = """examples:
  {prog} trials            # some of each fault, a few minutes on two free cores
  {prog} trials --long     # as many as in docs/reliability.md: hours

The trials are tools/reliability.py of the repository; results that are there are read.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    text = "folder for the results and the page, reliability.html"
    parser.add_argument("folder", metavar="FOLDER", help=text)
    parser.add_argument("--long", action="store_true", help="many faults of each kind: hours")


def call(given: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Make the page."""
    from fusion.commands.errors import run
    from fusion.commands.reliability_report import reliability_report

    run(lambda: reliability_report(given.folder, given.long))
