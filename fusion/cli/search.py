"""Search an index of films by words, sound, picture or any of them together."""

from __future__ import annotations

import argparse

from fusion.commands.arguments import add_index_options, positive

EXAMPLES = """examples:
  {prog} films.index "a kitten on a wall"
  {prog} films.index --audio bark.wav
  {prog} films.index "a dog" --video picture_of_it.mp4@12-19
  {prog} films.index --near 17 --top 5

Each hit has the similarity of what was compared, and of what is seen, heard and said alone.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    option = parser.add_argument
    option("index", help="folder of the index")
    option("words", nargs="*", help="the question")
    option("--audio", metavar="FILE", help="a sound to ask with; FILE@12-19 is a part of it")
    option("--video", metavar="FILE", help="a film to ask with, its picture alone; FILE@0:12-0:19")
    option("--near", type=int, metavar="ID", help="clips like the clip of this number")
    text = "combinations to compare, such as v,a,va (default: the largest that a clip has)"
    option("--in", dest="within", metavar="COMBINATIONS", default="", help=text)
    option("--film", metavar="NAME", help="only in films with this in their name")
    option("--top", type=positive, default=10, metavar="N", help="hits to show (default: 10)")
    option("--json", action="store_true", help="print JSON")
    add_index_options(parser)


def call(given: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Search."""
    from fusion.commands.errors import run
    from fusion.commands.search import search

    if given.near is None and not (given.words or given.audio or given.video):
        parser.error("ask something: words, --audio, --video or --near")
    if given.near is not None and (given.words or given.audio or given.video):
        parser.error("--near ID is a question of its own; leave out words, --audio and --video")
    run(lambda: search(given))
