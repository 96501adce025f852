"""The command ``fusion``: finds the command that is named, and runs it."""

from __future__ import annotations

import difflib
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

import fusion
from fusion.commands.arguments import Parser

COMMANDS = {  # each is a module of this folder, with _ for -
    "train": "train a model as a config says, evaluate it, write a report",
    "evaluate": "evaluate a trained model on any split or data set",
    "compare": "compare trained runs in one table and one picture",
    "study": "train every subset of the terms of a loss, and say which to pull together",
    "find-lr": "recommend learning rates for a config, by a short test",
    "plan": "say what a training needs of a machine, and how long it takes there",
    "index": "index films for search",
    "search": "search an index by words, sound, picture or any of them",
    "localise": "find when things happen in a film: the second of each step",
    "watch": "classify a film while it is read, frame by frame",
    "ask": "ask a trained model a question about a picture",
    "serve": "search an index in the browser, and by an API",
    "extract": "compute features of films with networks",
    "check": "list every mistake of a caption file",
    "check-media": "compare how films are read with what ffmpeg reads",
    "convert": "convert published weights or word vectors",
    "reliability-report": "show what kills, signals and damaged files do to runs",
    "pack": "pack published features into a feature store, or verify a store",
}
WIDTH = 2 + max(map(len, COMMANDS))
EXAMPLES = """examples:
  fusion train eao                      # on the built-in corpus, in minutes
  fusion evaluate runs/eao
  fusion index films/ --out films.index
  fusion search films.index "a dog barks"
  fusion train --help                   # options and examples of a command

On several GPUs: accelerate launch -m fusion train CONFIG
In Python: fusion.load("runs/eao").encode("a dog barks")
"""


def main(words: Sequence[str] | None = None) -> None:
    """Run the command that the first word names; ``words`` None: those of the program."""
    given = list(sys.argv[1:] if words is None else words)
    lines = [f"  {name:<{WIDTH}}{what}" for name, what in COMMANDS.items()]
    parser = Parser(
        prog="fusion",
        usage="fusion COMMAND ...",
        description=f"{fusion.__doc__}\n\ncommands:\n" + "\n".join(lines),
        epilog=EXAMPLES,
    )
    parser.add_argument("--version", action="version", version=f"fusion {fusion.__version__}")
    if not given:
        parser.print_help()
        sys.exit(2)
    if given[0].startswith("-"):
        parser.parse_args(given)
    if given[0] not in COMMANDS:
        near = difflib.get_close_matches(given[0], COMMANDS, n=1)
        way = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(COMMANDS)}"
        parser.error(f"there is no command {given[0]!r}; {way}")
    call(given[0], given[1:], prog=f"fusion {given[0]}")


def call(name: str, words: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Read the words of a command and run it; ``prog`` is what the user typed for it."""
    file = name.replace("-", "_")
    module = import_module(f"fusion.cli.{file}")
    prog = prog or f"python tools/{file}.py"
    launched = f"-m {prog}" if prog.startswith("fusion") else f"tools/{file}.py"
    examples = module.EXAMPLES.replace("{launch}", launched).replace("{prog}", prog)
    parser = Parser(prog=prog, description=module.__doc__, epilog=examples)
    module.add(parser)
    given = parser.parse_intermixed_args(words)
    try:
        module.call(given, parser)
    except KeyboardInterrupt:  # before the work began
        print("interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
