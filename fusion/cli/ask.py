"""Ask a trained model a question about a picture."""

from __future__ import annotations

import argparse

from fusion.commands.arguments import positive

EXAMPLES = """examples:
  {prog} runs/vqa photo.jpg "what colour is the star?"
  {prog} runs/vqa photo.jpg "is there a ring?" --attention looked.png
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    option = parser.add_argument
    option("run", help="folder of a run of question answering, or a checkpoint")
    option("image", help="file of the picture")
    option("question", help="the question, in quotes")
    option("--top", type=positive, default=5, metavar="N", help="answers to show (default: 5)")
    text = "write the picture, dark where the question did not look, to a PNG file"
    option("--attention", metavar="FILE", help=text)
    option("--json", action="store_true", help="print JSON")
    option("--trust", action="store_true", help="import and run the user's own parts")


def call(given: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Ask."""
    from fusion.commands.ask import ask
    from fusion.commands.errors import run

    run(lambda: ask(given))
