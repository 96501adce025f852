"""Shared parser of the command-line tools: help with examples, and mistakes that name a way out."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from fusion.search.engines import NAMES
from fusion.typed import expand_all

_NO_PATHS = {"words", "overrides"}  # a question; config.py reads overrides


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` that shows examples below its help and suggests misspelt options.

    Options must be written in full. A required argument that is missing is explained.
    """

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)
        self._words: list[str] = []

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Read the words, which :meth:`error` looks at."""
        self._words = list(sys.argv[1:] if args is None else args)
        found, rest = super().parse_known_args(args, namespace)
        for name, value in vars(found).items():
            if name not in _NO_PATHS:
                try:
                    setattr(found, name, expand_all(value))
                except ValueError as error:
                    self.error(str(error).removeprefix(": "))
        return found, rest

    def error(self, message: str) -> NoReturn:
        """Print the usage and the message with what was meant, and exit with code 2."""
        known = [option for parser in self._parsers() for option in parser._option_string_actions]
        given = [word.partition("=")[0] for word in self._words if word.startswith("--")]
        for wrong in set(given) - set(known):
            if near := difflib.get_close_matches(wrong, known, 1):
                message += f"\n  {wrong}: did you mean {near[0]}?"
            elif any(action.metavar == "key=value" for action in self._actions):
                message += f"\n  {wrong}: a key of the config is written key=value, without dashes"
        what, _, missing = message.splitlines()[0].partition(": ")
        for action in self._actions:
            names = ["/".join(action.option_strings), action.metavar, action.dest]
            if what.endswith("are required") and {*names} & {*missing.split(", ")}:
                message += f"\n  {next(filter(None, names))}: {action.help}"
        super().error(message)

    def _parsers(self) -> list[argparse.ArgumentParser]:
        """List this parser and those of its subcommands."""
        commands = [a for a in self._actions if isinstance(a, argparse._SubParsersAction)]
        return [self, *(parser for action in commands for parser in action.choices.values())]


def _number(kind: type[float], fits: Callable[[float], bool], what: str) -> Callable[[str], Any]:
    """Make a reader of a word for ``add_argument(type=…)``; ``what`` is wanted."""

    def read(word: str) -> float:
        with contextlib.suppress(ValueError):
            if fits(number := kind(word)):
                return number
        raise argparse.ArgumentTypeError(f"must be {what}; got {word}")

    return read


positive = _number(int, lambda number: number >= 1, "a whole number and at least 1")
counted = _number(int, lambda number: number >= 0, "a whole number and at least 0")
seconds = _number(float, lambda number: number > 0, "a number of seconds above 0")
above = _number(float, lambda number: 0 < number < float("inf"), "a number above 0")
rate = _number(float, lambda number: 0 < number <= 1000, "a number above 0 and at most 1000")
share = _number(float, lambda number: 0 <= number <= 1, "a share between 0 and 1")


def several(*known: str) -> Callable[[str], tuple[str, ...]]:
    """Make a reader of names with commas between them for ``add_argument(type=…)``."""

    def read(word: str) -> tuple[str, ...]:
        names = tuple(part.strip() for part in word.split(",") if part.strip())
        if wrong := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"choose from {', '.join(known)}; got {wrong[0]!r}")
        return names

    return read


def add_index_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of commands that open an index."""
    option = parser.add_argument
    option("--model", metavar="MODEL", help="that made the index, if it has moved")
    text = f"what finds neighbours: {', '.join(NAMES)} (default: that of the index)"
    option("--engine", choices=NAMES, metavar="NAME", help=text)
    option("--url", metavar="URL", help="of the Qdrant server, if it has moved")
    text = "import and run the user's own parts that the model names"
    option("--trust", action="store_true", help=text)
