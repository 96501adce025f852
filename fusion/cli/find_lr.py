"""Recommend learning rates for a config by a range test; nothing is trained for good."""

from __future__ import annotations

import argparse

from fusion.commands.arguments import positive

EXAMPLES = """examples:
  {prog} eao                                       # a recipe of configs/, or a YAML file
  {prog} eao data.films=40 --repetitions 1         # on less data, faster
  {prog} eao trainer.optimizer=sgd --out rates/sgd
  {prog} eao --parts encoders.audio,heads          # other parts than the encoders
  {prog} eao --whole                               # one rate for all
  torchrun --nproc_per_node 2 {launch} eao

The rate grows from 1e-7 to 10, and the loss of each batch is compared with that of a run in which
the tested part does not learn. Weights are restored after each run; the results are a picture and
a JSON file. Paste the last line of the table behind fusion train CONFIG.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    option = parser.add_argument
    option("config", help="YAML file, or a recipe such as eao or youcook2/finetune")
    text = "changes to the config"
    option("overrides", nargs="*", default=[], metavar="key=value", help=text)
    which = parser.add_mutually_exclusive_group()
    text = "beginnings of parameters' names (default: encoders.NAME of each encoder)"
    which.add_argument("--parts", metavar="PART,PART,...", help=text)
    which.add_argument("--whole", action="store_true", help="test the whole model alone")
    text = "steps of a run (default: 100, at least 30 in a short training)"
    option("--steps", type=positive, metavar="N", help=text)
    text = "runs on different batches, of which the median counts (default: 3; 1 if the test would"
    option("--repetitions", type=positive, metavar="N", help=f"{text} be longer than the training)")
    option("--out", metavar="FOLDER", help="for picture and JSON (default: output, with -rates)")


def call(given: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Test learning rates."""
    from fusion.commands.errors import run
    from fusion.commands.find_lr import find_lr
    from fusion.commands.initial import read_training_config

    parts: list[str] | None = [] if given.whole else None
    if given.parts is not None:
        parts = [part.strip() for part in given.parts.split(",") if part.strip()]

    def work() -> None:
        config = read_training_config(given.config, given.overrides)
        find_lr(config, parts, given.steps, given.repetitions, given.out)

    run(work)
