"""Find when things happen in a film: the second of each step."""

from __future__ import annotations

import argparse

from fusion.commands.arguments import seconds

EXAMPLES = """examples:
  {prog} runs/eao film.mp4 "a red ball bounces" "a bell rings"
  {prog} runs/eao film.mp4 --steps recipe.txt --picture curves.png
  {prog} runs/eao film.mp4 --own-subtitles --any-order --json
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    option = parser.add_argument
    option("run", help="folder of a run, or a checkpoint")
    option("film", help="a media file")
    option("words", nargs="*", metavar="STEP", help="what happens, in quotes, in its order")
    text = "take the steps from a file: a text file with one in each line, or subtitles"
    option("--steps", metavar="FILE", help=text)
    text = "take the steps from the subtitles beside the film"
    option("--own-subtitles", action="store_true", help=text)
    text = "the steps may happen in any order: each gets its best second"
    option("--any-order", action="store_true", help=text)
    text = "what is compared, such as t->v (default: all that the model embeds, together)"
    option("--direction", metavar="DIRECTION", help=text)
    text = "what is looked at around each second (default: 8, or what the model takes)"
    option("--window", type=seconds, metavar="SECONDS", help=text)
    text = "from one window to the next (default: 1)"
    option("--step", type=seconds, default=1.0, metavar="SECONDS", help=text)
    text = "draw the scores over time to a .png or .html file"
    option("--picture", metavar="FILE", help=text)
    option("--json", action="store_true", help="print JSON")
    option("--trust", action="store_true", help="import and run the user's own parts")


def call(given: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Localise."""
    from fusion.commands.errors import run
    from fusion.commands.localise import localise

    ways = [bool(given.words), given.steps is not None, given.own_subtitles]
    if sum(ways) != 1:
        parser.error(
            'give the steps either as words, such as "a bell rings", or by one of --steps'
            " FILE and --own-subtitles"
        )
    run(lambda: localise(given))
