"""Inject faults into small runs, and count what is seen: kills, signals, damaged files."""

import json
import os
import platform
import signal
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the smallest config is one of the tests

import torch

from fusion.commands.arguments import Parser, positive
from fusion.commands.errors import run
from fusion.files import write_atomically
from tests.tiny import write_config
from tools.faults import corrupt, damage, hostile, kills, launches, signals

EXAMPLES = """examples:
  python tools/reliability.py damage --times 300     # newest checkpoint damaged, then resume
  python tools/reliability.py kills --processes 2    # killed at random moments, then resume
  python tools/reliability.py kills --times 20 --config eao --set trainer.log_every=1
  python tools/reliability.py signals                # every way to launch, told to stop
  python tools/reliability.py signals --signals SIGTERM --launches python torchrun-2
  python tools/reliability.py restart                # a rank is killed under --max_restarts 1
  python tools/reliability.py launches --times 30    # how whole runs by torchrun end
  python tools/reliability.py corrupt                # clips that cannot be read, 0 to 20 %
  python tools/reliability.py hostile                # files that want to harm, memory of a bomb
  python tools/reliability.py all --out trials       # some of each, for: fusion reliability-report

The last line of the output is JSON.
"""
QUICK = {  # what `all` does: words of each trial
    "damage": ["--times", "40"],
    "kills": ["--times", "4", "--variants", "plain", "all"],
    "kills-2": ["--times", "2", "--variants", "plain", "--processes", "2"],
    "signals": ["--signals", "SIGTERM", "--launches", "python"],
    "restart": [],
    "launches": ["--times", "2", "--processes", "2"],
    "corrupt": ["--films", "8"],
    "hostile": ["--mib", "256"],
}
LONG = {
    "damage": ["--times", "300"],
    "kills": ["--times", "20"],
    "kills-2": ["--times", "20", "--processes", "2"],
    "kills-4": ["--times", "10", "--processes", "4"],
    "kills-1-SIGTERM": ["--times", "8", "--signal", "SIGTERM"],
    "signals": ["--signals", "SIGTERM"],
    "restart": [],
    "launches": ["--times", "30"],
    "corrupt": ["--films", "24", "--set", "trainer.epochs=12"],
    "hostile": ["--mib", "1024"],
}
LARGE = ("words", "machine", "variants", "bomb")  # parts of a result that are not printed
STEPS = 96  # of a run of the smallest config for the kills
CLIPS = 16  # of its training
EACH = 5  # steps from one checkpoint to the next


def parse(words=None):
    """Read the command line."""
    parser = Parser(description=__doc__, epilog=EXAMPLES)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (help, add_options, _) in TRIALS.items():
        command = commands.add_parser(name, help=help)
        text = "folder for the results, as JSON that fusion reliability-report reads"
        command.add_argument("--out", metavar="FOLDER", help=text)
        add_options(command)
    command = commands.add_parser("all", help="some of each")
    command.add_argument("--out", metavar="FOLDER", required=True, help="folder for the results")
    text = "as many faults as in docs/reliability.md: hours"
    command.add_argument("--long", action="store_true", help=text)
    return parser.parse_args(words)


def _add_times(command, default, what="how often"):
    text = f"{what} (default: {default})"
    command.add_argument("--times", type=positive, default=default, help=text)


def _add_job(command):
    text = "what is trained (default: the smallest config of the tests)"
    command.add_argument("--config", metavar="CONFIG", help=text)
    text = "changes to the config"
    command.add_argument("--set", nargs="+", metavar="key=value", default=[], help=text)


def _add_damage(command):
    _add_times(command, 300)
    command.add_argument("--seed", type=int, default=0, help="of the faults (default: 0)")


def _add_signals(command):
    names, choices = ["SIGTERM", "SIGINT", "SIGHUP"], list(signals.LAUNCHES)
    command.add_argument("--signals", nargs="+", choices=names, default=names, help="which")
    command.add_argument("--launches", nargs="+", choices=choices, default=choices, help="which")


def _add_kills(command):
    _add_times(command, 20, "kills")
    command.add_argument("--processes", type=positive, default=1, help="default: 1")
    command.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    choices = list(kills.VARIANTS)
    text = "runs that share the kills (default: all)"
    command.add_argument("--variants", nargs="+", choices=choices, default=choices, help=text)
    text = "sent to each process (default: SIGKILL)"
    command.add_argument("--signal", choices=["SIGKILL", "SIGTERM"], default="SIGKILL", help=text)
    text = "new processes, by torchrun, instead of copies of one that has imported PyTorch"
    command.add_argument("--fresh", action="store_true", help=text)
    _add_job(command)


def _add_launches(command):
    _add_times(command, 30, "launches")
    text = "numbers of processes (default: 2 4)"
    command.add_argument("--processes", type=positive, nargs="+", default=[2, 4], help=text)


def _add_corrupt(command):
    text = "shares of the training clips (default: 0 0.01 0.05 0.2)"
    shares = [0.0, 0.01, 0.05, 0.2]
    command.add_argument("--shares", type=float, nargs="+", default=shares, help=text)
    command.add_argument("--films", type=positive, default=24, help="of a split (default: 24)")
    _add_job(command)


def _add_hostile(command):
    text = "what the bomb of the curve unpacks to, in MiB (default: 1024)"
    command.add_argument("--mib", type=positive, default=1024, help=text)


def _job(given, folder, **trainer):
    """Choose the config of a trial, and its changes."""
    if given.config:
        return given.config, given.set
    return write_config(folder, trainer=trainer), given.set


def _batch(processes):
    """Return a batch that can be shared out, in parts of 2 clips: the groups of BatchNorm."""
    return max(4, 2 * processes)


def _kill(given, folder):
    batch = _batch(given.processes)
    often = {"log_every": 1, "save_every": EACH}
    config, overrides = _job(
        given, folder, epochs=STEPS * batch // CLIPS, batch_size=batch, **often
    )
    number = signal.Signals[given.signal]
    plan = given.processes, given.times, given.variants, given.seed, given.fresh, number
    return {
        "job": " ".join([given.config or "tests/tiny.py", *overrides]),
        **kills.try_kills(config, overrides, *plan, folder),
    }


def _launch(given, folder):
    batch = _batch(max(given.processes))
    config = write_config(folder, trainer={"epochs": 1, "batch_size": batch})
    return launches.try_launches(config, (), given.processes, given.times, folder)


def _corrupt(given, folder):
    config, overrides = _job(given, folder, epochs=4, batch_size=16, log_every=1)
    return {
        "job": " ".join([given.config or "tests/tiny.py", *overrides]),
        **corrupt.try_corrupt(config, overrides, given.shares, given.films, folder),
    }


def _nothing(command):
    pass


TRIALS = {  # help, options, trial
    "damage": (
        "a bit of the newest checkpoint, or a whole file",
        _add_damage,
        lambda given, folder: damage.try_damage(given.times, given.seed, folder),
    ),
    "kills": ("SIGKILL or SIGTERM at random moments", _add_kills, _kill),
    "signals": (
        "SIGTERM, SIGINT, SIGHUP to all kinds of launch",
        _add_signals,
        lambda given, folder: signals.try_signals(given.launches, given.signals, folder),
    ),
    "restart": (
        "SIGKILL to one of two ranks under --max_restarts 1",
        _nothing,
        lambda given, folder: signals.try_restart(folder),
    ),
    "launches": ("exit codes of whole runs", _add_launches, _launch),
    "corrupt": ("clips that cannot be read", _add_corrupt, _corrupt),
    "hostile": (
        "files that want to harm",
        _add_hostile,
        lambda given, folder: hostile.try_hostile(given.mib, folder),
    ),
}


def perform(words, name=None):
    """Do one trial in a folder that is removed; write its result and print it."""
    given = parse(words)
    with tempfile.TemporaryDirectory() as folder:
        result = TRIALS[given.command][2](given, Path(folder))
    said = {"command": given.command, "words": _without_out(words), "machine": _machine(), **result}
    if given.out:
        number = getattr(given, "processes", None)
        parts = [given.command, *([str(number)] if isinstance(number, int) else [])]
        parts += [given.signal] if getattr(given, "signal", "SIGKILL") != "SIGKILL" else []
        name = name or "-".join(parts)
        write_atomically(Path(given.out) / f"{name}.json", json.dumps(said))
    print(json.dumps({key: value for key, value in said.items() if key not in LARGE}))


def _without_out(words):
    """Leave out the folder of the results: it is a place on this machine."""
    place = words.index("--out") if "--out" in words else len(words)
    return [*words[:place], *words[place + 2 :]]


def _machine():
    """Say where it was measured, and what else ran there."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"cores": os.cpu_count(), "python": platform.python_version(), "load": load} | {
        "torch": torch.__version__,
        "system": platform.system(),
    }


def main():
    """Inject and count."""
    given = parse()
    if given.command != "all":
        perform(sys.argv[1:])
        return
    for name, words in (LONG if given.long else QUICK).items():
        print(f"--- {name}", flush=True)
        perform([name.partition("-")[0], "--out", given.out, *words], name)


if __name__ == "__main__":
    run(main)
