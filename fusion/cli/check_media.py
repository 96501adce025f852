"""Compare how films are read here with what the ffmpeg program reads."""

from __future__ import annotations

import argparse
import sys

EXAMPLES = """examples:
  {prog} films/*
  {prog} film.avi --json

Pictures at 1, 10 and 24 per second and 16 kHz sound of each file are compared with those of the
ffmpeg of imageio-ffmpeg (pip install imageio-ffmpeg). What differs is listed: how much of it, from
which second on, and by how much at most (levels of 255; sound: of full scale 1).

Exit codes: 0, nothing differs; 1, something differs; 2, an error in the command.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("files", nargs="+", metavar="FILES", help="media files")
    parser.add_argument("--json", action="store_true", help="print all that was compared as JSON")


def call(given: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Compare."""
    from fusion.commands.check_media import check_media
    from fusion.commands.errors import run

    run(lambda: sys.exit(check_media(given.files, given.json)))
