"""Classify a film while it is read: what happens in it, frame by frame."""

from __future__ import annotations

import argparse

from fusion.commands.arguments import positive, rate

EXAMPLES = """examples:
  {prog} runs/tsm/causal film.mp4
  {prog} runs/tsm/causal film.mp4 --fps 12 --json
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    option = parser.add_argument
    text = "folder of a run of classification with a causal network, or a checkpoint"
    option("run", help=text)
    option("film", help="a media file")
    text = "frames a second that the network sees (default: 8); in training it was data.frames"
    text += " divided by the seconds of a film"
    option("--fps", type=rate, default=8.0, metavar="RATE", help=text)
    text = "frames whose scores are averaged (default: those of a clip in training)"
    option("--window", type=positive, metavar="FRAMES", help=text)
    option("--json", action="store_true", help="print a line of JSON for each frame")
    option("--trust", action="store_true", help="import and run the user's own parts")


def call(given: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Watch."""
    from fusion.commands.errors import run
    from fusion.commands.watch import watch

    run(lambda: watch(given))
