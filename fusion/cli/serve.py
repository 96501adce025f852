"""Serve an index of films: a page to search in, and an API."""

from __future__ import annotations

import argparse

EXAMPLES = """examples:
  {prog} films.index
  {prog} films.index --port 9000
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    option = parser.add_argument
    option("index", help="folder of the index")
    option("--host", default="127.0.0.1", help="address to listen at (default: this machine only)")
    option("--port", type=int, default=8765, help="default: 8765")
    option("--model", metavar="MODEL", help="that made the index, if it has moved")
    text = "import and run the user's own parts that the model names"
    option("--trust", action="store_true", help=text)


def call(given: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Serve."""
    from fusion.commands.errors import run
    from fusion.commands.serve import serve

    run(lambda: serve(given))
