"""Evaluate a trained model: retrieval in every direction between its modalities."""

from __future__ import annotations

import argparse

EXAMPLES = """examples:
  {prog} runs/eao
  {prog} runs/eao --set validation --json validation.json
  {prog} runs/eao/last --set my_videos.yaml            # a config with the section data
  {prog} CHECKPOINT --set msrvtt/zero_shot data_root=FOLDER
  {prog} runs/eao --set localisation --report steps.html  # when the steps of films happen
  {prog} runs/eao --missing audio,video                # what is found if clips lack them
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "checkpoint", help="folder of a run (its best checkpoint is used), or a checkpoint"
    )
    parser.add_argument(
        "--set",
        metavar="NAME_OR_CONFIG",
        help="split of the training data (default: test), or a config: evaluate the test split of"
        " its data; it needs no other section",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="changes to the config, as in training"
    )
    parser.add_argument("--json", metavar="FILE", help="also write the result to FILE")
    parser.add_argument(
        "--missing",
        metavar="NAMES",
        help="modalities, such as audio,video, to take away from 0 to 100 %% of the clips: recalls"
        " at each share, also in the report of the run",
    )
    parser.add_argument(
        "--direction",
        metavar="DIRECTION",
        help="for --missing (default: t->va for audio and for video, v->ta for text)",
    )
    text = "also write a page with the table, charts and examples to FILE.html"
    parser.add_argument("--report", metavar="FILE", help=text)
    text = "import and run the user's own parts that the checkpoint names"
    parser.add_argument("--trust", action="store_true", help=text)


def call(given: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Evaluate."""
    from fusion.commands.errors import run
    from fusion.commands.evaluate import evaluate

    given_words = (given.checkpoint, given.set, given.json, given.overrides)
    missing = [name.strip() for name in (given.missing or "").split(",") if name.strip()]
    if given.missing is not None and not missing:
        parser.error("--missing names no modality; give one or more, such as audio,video")
    options = {"trust": given.trust, "missing": missing, "direction": given.direction}
    options["report"] = given.report
    run(lambda: evaluate(*given_words, **options))
