"""Train the model of a config, evaluate it in every direction and write a report."""

from __future__ import annotations

import argparse
import sys

EXAMPLES = """examples:
  {prog} eao                                           # a recipe of configs/, or a YAML file
  {prog} eao --smoke                                   # a trial of any recipe, in a minute
  {prog} --films films/ --captions captions.csv      # your own films
  {prog} eao output=runs/second seed=1
  {prog} eao output=runs/second seed=1 resume=true
  accelerate launch {launch} eao                       # on all GPUs
  torchrun --nproc_per_node 2 {launch} eao output=runs/two

frequent overrides:
  output=DIR                       folder for checkpoints, metrics and the report
  seed=1                           seed of all random numbers
  resume=true                      continue the run in output
  overwrite=true                   delete the run in output first
  init=CHECKPOINT                  begin with its weights and its architecture
  base=spoken_digits               put the config, such as ablations/no_pairs, on another one
  trainer.epochs=1                 passes over the training clips
  trainer.batch_size=512           clips in a step, over all processes
  trainer.learning_rate=1e-3       the highest; fusion find-lr CONFIG recommends one
  trainer.mixed_precision=bf16     or fp16, no, or auto
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "config",
        nargs="?",
        help="YAML file, or a recipe such as eao or youcook2/finetune (with --films: own_videos)",
    )
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="changes to the config"
    )
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="a trial: a few clips, small widths, one epoch; the output ends with -smoke",
    )
    parser.add_argument(
        "--films",
        metavar="FOLDER",
        help="folder of films: extract features with a light network, then train",
    )
    parser.add_argument("--captions", metavar="FILE", help="captions of the films")


def call(given: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Train."""
    if given.config is not None and given.films and "=" in given.config:  # no config is named
        given.config, given.overrides = None, [given.config, *given.overrides]
    if bool(given.films) != bool(given.captions):
        parser.error("--films and --captions belong together; give both")
    if given.config is None and not given.films:
        parser.error("the following arguments are required: config")

    from fusion.commands.errors import run
    from fusion.commands.films import films_config
    from fusion.commands.initial import read_training_config
    from fusion.commands.smoke import read_smoke_config
    from fusion.commands.train import train

    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]

    def work() -> None:
        read = read_smoke_config if given.smoke else read_training_config
        if given.films:
            config = given.config or "own_videos"
            train(films_config(given.films, given.captions, config, given.overrides, read))
        else:
            train(read(given.config, given.overrides))

    run(work)
