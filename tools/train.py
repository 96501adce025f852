"""Train the model of a config, evaluate it in every direction and write a report."""

import sys

from fusion.commands.arguments import Parser
from fusion.commands.errors import run
from fusion.commands.train import train
from fusion.config import load_config

EXAMPLES = """examples:
  accelerate launch tools/train.py configs/eao.yaml
  accelerate launch tools/train.py configs/eao.yaml output=runs/second seed=1
  accelerate launch tools/train.py configs/eao.yaml output=runs/second seed=1 resume=true
  torchrun --nproc_per_node 2 tools/train.py configs/eao.yaml output=runs/two

frequent overrides:
  output=DIR                       folder for checkpoints, metrics and the report
  seed=1                           seed of all random numbers
  resume=true                      continue the run in output
  overwrite=true                   delete the run in output first
  trainer.epochs=1                 passes over the training clips
  trainer.batch_size=512           clips in a step, over all processes
  trainer.mixed_precision=bf16     or fp16, or no
"""


def main() -> None:
    """Read the command line and train."""
    parser = Parser(description=__doc__, epilog=EXAMPLES)
    parser.add_argument("config", help="YAML file, such as those in configs/")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="changes to the config"
    )
    arguments = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    run(lambda: train(load_config(arguments.config, arguments.overrides)))


if __name__ == "__main__":
    main()
