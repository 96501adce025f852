"""Evaluate a trained model: retrieval in every direction between its modalities."""

from fusion.commands.arguments import Parser
from fusion.commands.errors import run
from fusion.commands.evaluate import evaluate

EXAMPLES = """examples:
  python tools/evaluate.py runs/eao
  python tools/evaluate.py runs/eao --set validation --json validation.json
  python tools/evaluate.py runs/eao/last --set my_videos.yaml
  python tools/evaluate.py CHECKPOINT --set configs/msrvtt/zero_shot.yaml data_root=FOLDER
"""


def main() -> None:
    """Read the command line and evaluate."""
    parser = Parser(description=__doc__, epilog=EXAMPLES)
    parser.add_argument(
        "checkpoint", help="folder of a run (its best checkpoint is used), or a checkpoint"
    )
    parser.add_argument(
        "--set",
        metavar="NAME_OR_CONFIG",
        help="split of the training data (default: test), or a config: evaluate the test split of"
        " its data",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="key=value",
        help="changes to the config, as in tools/train.py",
    )
    parser.add_argument("--json", metavar="FILE", help="also write the result to FILE")
    arguments = parser.parse_intermixed_args()
    run(lambda: evaluate(arguments.checkpoint, arguments.set, arguments.json, arguments.overrides))


if __name__ == "__main__":
    main()
