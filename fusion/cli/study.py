"""Train every subset of the terms of the combinatorial loss; say which to pull together.

Trainings that are done are not repeated, and one that was stopped goes on: give the command again.
"""

from __future__ import annotations

import argparse

from fusion.commands.arguments import positive

EXAMPLES = """examples:
  {prog} study                                # 63 subsets of six terms on the built-in corpus
  {prog} study --dry-run                      # what is done, what is left, and how long it takes
  {prog} study trainer.epochs=3 data.films=40 # other values of the recipe
  {prog} study --weights 0,0.1,1 --budget 40  # weights instead of subsets
  {prog} studies/weights                      # weights for eao, chosen on validation
"""


def _weights(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be numbers such as 0,0.1,1; got {text}") from None


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    option = parser.add_argument
    option("study", help="YAML file of a study, or a recipe such as study")
    text = "changes to the config that is trained, or to the study: output, seeds, terms"
    option("overrides", nargs="*", default=[], metavar="key=value", help=text)
    text = "trainings at a time (default: one for each GPU, else for each core)"
    option("--at-once", type=positive, metavar="N", help=text)
    text = "weights that a term may have, instead of in or out"
    option("--weights", type=_weights, metavar="W,W,...", help=text)
    text = "settings of weights to train, far from one another (default: 40)"
    option("--budget", type=positive, metavar="N", help=text)
    option("--dry-run", action="store_true", help="list the trainings and train nothing")


def call(given: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Run the study."""
    from fusion.commands.errors import run
    from fusion.commands.study import study

    run(lambda: study(given))
