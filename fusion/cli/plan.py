"""Say what a training needs of a machine, and how long it takes there; nothing is trained."""

from __future__ import annotations

import argparse

from fusion.commands.arguments import above, counted, positive, share

EXAMPLES = """examples:
  {prog} howto100m/eao --devices 8
  {prog} howto100m/eao trainer.mixed_precision=bf16 --devices 64 --goal-hours 1
  {prog} tsm/kinetics model.num_classes=400 data.folder=x --clips 240000 --device-tflops 15.7
  {prog} --measured runs/eao --like runs/eao       # a run's own config, against its log
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    option = parser.add_argument
    option("config", nargs="?", help="YAML file, or a recipe such as howto100m/eao")
    text = "changes to the config"
    option("overrides", nargs="*", default=[], metavar="key=value", help=text)
    option("--devices", type=positive, metavar="N", help="that train together (default: 1)")
    text = "operations a second of a device for dense matrices, in 1e12 (default: 989, H100 bf16)"
    option("--device-tflops", type=above, dest="tflops", metavar="X", help=text)
    text = "share of it that a training reaches (default: 0.4)"
    option("--utilisation", type=share, metavar="SHARE", help=text)
    text = "memory of a device (default: 80)"
    option("--memory-gib", type=above, metavar="M", help=text)
    text = "bytes a second of that memory, in 1e12 (default: 3)"
    option("--memory-tbps", type=above, metavar="B", help=text)
    text = "what a machine reads, Gbit/s (default: 50)"
    option("--read-gbps", type=above, metavar="R", help=text)
    text = "network of a machine, Gbit/s (default: 400)"
    option("--network-gbps", type=above, metavar="W", help=text)
    text = "between the devices of a machine, Gbit/s of a device (default: 3600, NVLink)"
    option("--local-gbps", type=above, metavar="W", help=text)
    text = "devices of a machine (default: 8)"
    option("--per-machine", type=positive, metavar="N", help=text)
    text = "cores for each device that read clips (default: 12)"
    option("--cores", type=positive, metavar="N", help=text)
    text = "clips a second that a core reads (default: 10000 of features, 20 of films)"
    option("--clips-per-core", type=above, metavar="N", help=text)
    text = "clips of an epoch (default: those of the data, where they are known)"
    option("--clips", type=positive, metavar="N", help=text)
    text = "clips that are evaluated after each epoch (default: those of the data, or none)"
    option("--evaluated", type=counted, metavar="N", help=text)
    option("--words", type=positive, default=20, help="words of a text (default: 20)")
    text = "say what stands in the way of a training in so many hours"
    option("--goal-hours", type=above, metavar="H", help=text)
    text = "take the rate of a device from a finished run on one device"
    option("--like", metavar="RUN", help=text)
    text = "compare with the log of a finished run; without a config, plan its own"
    option("--measured", metavar="RUN", help=text)
    option("--json", action="store_true", help="print JSON")


def call(given: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Plan."""
    from fusion.commands.errors import run
    from fusion.commands.plan import plan

    run(lambda: plan(given))
