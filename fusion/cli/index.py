"""Index films for search: find them, cut them into clips, embed what is seen, heard and said.

Run it again to bring the index up to date: new and changed films are embedded, films that are gone
leave it; films of other folders stay. It can be stopped at any time. Options on how films are cut
are those of the last time, unless they are given.
"""

from __future__ import annotations

import argparse

from fusion.commands.arguments import positive, seconds, several
from fusion.search.engines import NAMES

EXAMPLES = """examples:
  {prog} films/ --out films.index
  {prog} films/ --out films.index --model runs/mine --windows 8 --step 4
  {prog} films/ --out films.index --captions captions.csv
  {prog} films/ --out films.index --engine ray --ray-address head:6379
  {prog} films/ --out films.index --cut scenes
  {prog} films/ --out films.index --model clip:FOLDER    # a pre-trained model, no training
  {prog} --out films.index --duplicates                  # which films are there twice
  {prog} films/ --out films.index --engine qdrant --url http://localhost:6333
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    option = parser.add_argument
    option("films", nargs="*", metavar="FILMS", help="media files, and folders of media files")
    option("--out", required=True, metavar="INDEX", help="folder of the index")
    text = (
        "run, checkpoint, name on the hub, or clip:FOLDER for a pre-trained CLIP (default: that of"
        " the index, else runs/eao)"
    )
    option("--model", metavar="MODEL", help=text)
    text = "caption file or folder (default: those named like the films, if there are any)"
    option("--captions", metavar="PATH", help=text)
    text = "at captions (default; others into windows), scenes or windows: where films are cut"
    option("--cut", choices=("captions", "scenes", "windows"), metavar="WAY", help=text)
    text = "longest clip that is not cut at captions (default: 10, if the model takes so much)"
    option("--windows", type=seconds, metavar="SECONDS", help=text)
    option("--step", type=seconds, metavar="SECONDS", help="from clip to clip (default: a half)")
    text = "also remove films that are not there although their folder is not, or is empty"
    option("--prune", action="store_true", help=text)
    text = "say which films are the same, wholly or in part; FILMS may be left out"
    option("--duplicates", action="store_true", help=text)
    option("--json", action="store_true", help="print the duplicates as JSON")
    text = (
        f"what finds neighbours: {', '.join(NAMES)} (default: faiss for large indexes); and ray, to"
        " embed on several machines, or in several processes of this one; such as ray,qdrant"
    )
    option("--engine", type=several(*NAMES, "ray"), default=(), metavar="NAMES", help=text)
    option("--url", metavar="URL", help="of the Qdrant server; its key is read from QDRANT_API_KEY")
    text = "HOST:PORT of Ray's head (default: RAY_ADDRESS; without it this machine alone)"
    option("--ray-address", metavar="ADDRESS", help=text)
    option("--workers", type=positive, metavar="N", help="films that Ray embeds at a time")
    text = "import and run the user's own parts that the model names"
    option("--trust", action="store_true", help=text)


def call(given: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Index."""
    from fusion.commands.errors import run
    from fusion.commands.index import index

    if not (given.films or given.duplicates or given.prune):
        parser.error("name films, or give --duplicates or --prune")
    if given.json and not given.duplicates:
        parser.error("--json is for --duplicates")
    if (given.ray_address or given.workers) and "ray" not in given.engine:
        parser.error("--ray-address and --workers are for --engine ray")
    run(lambda: index(given))
