"""Serve an index of films: a page to search in, and an API, on this machine."""

from __future__ import annotations

import argparse

from fusion.commands.arguments import add_index_options, positive, seconds

EXAMPLES = """examples:
  {prog} films.index
  {prog} films.index --port 9000 --in v,a
  {prog} films.index --model runs/eao
  {prog} films.index --questions runs/vqa          # answers questions about pictures, too

It prints the address of the page; Ctrl-C ends it. The API is described at /docs.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    option = parser.add_argument
    option("index", help="folder of the index")
    text = "address to listen at (default: 127.0.0.1, for programs of this machine alone)"
    option("--host", default="127.0.0.1", metavar="ADDRESS", help=text)
    option("--port", type=int, default=8765, metavar="N", help="default: 8765; 0: any free one")
    add_index_options(parser)
    text = "run of question answering, which answers questions about pictures and films"
    option("--questions", metavar="RUN", help=text)
    text = "combinations to compare, such as v,a,va, where a question does not say"
    option("--in", dest="within", metavar="COMBINATIONS", default="", help=text)
    text = "largest upload in megabytes (default: 200)"
    option("--upload-mb", type=positive, default=200, metavar="N", help=text)
    text = "longest upload in seconds of sound or film (default: 120)"
    option("--upload-seconds", type=seconds, default=120.0, metavar="S", help=text)


def call(given: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Serve."""
    from fusion.commands.errors import run
    from fusion.commands.serve import serve

    if not 0 <= given.port < 65_536:
        parser.error(f"--port must be from 0 to 65535; got {given.port}")
    run(lambda: serve(given))
