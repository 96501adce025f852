"""Shared parser of the command-line tools: help with examples, and mistakes that name a way out."""

from __future__ import annotations

import argparse
import difflib
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` that shows examples below its help and suggests misspelt options.

    Options must be written in full. A required argument that is missing is explained.
    """

    def __init__(self, **options: Any) -> None:
        kind = argparse.RawDescriptionHelpFormatter
        super().__init__(**{"allow_abbrev": False, "formatter_class": kind} | options)

    def error(self, message: str) -> NoReturn:
        """Print the usage and the message, and exit with code 2."""
        what, _, words = message.partition(": ")
        if what == "unrecognized arguments":
            known = [
                option for parser in self._parsers() for option in parser._option_string_actions
            ]
            wrong = [w.partition("=")[0] for w in words.split() if w.startswith("-")]
            near = [difflib.get_close_matches(word, known, 1) for word in wrong]
            if meant := [match for found in near for match in found]:
                message += f"; did you mean {' and '.join(meant)}?"
        elif what == "the following arguments are required":
            for action in self._actions:
                names = ["/".join(action.option_strings), str(action.metavar), action.dest]
                if action.help and {*names} & {*words.split(", ")}:
                    message += f"\n  {next(filter(None, names))}: {action.help}"
        super().error(message)

    def _parsers(self) -> list[argparse.ArgumentParser]:
        """List this parser and those of its subcommands."""
        commands = [a for a in self._actions if isinstance(a, argparse._SubParsersAction)]
        return [self, *(parser for action in commands for parser in action.choices.values())]


def share(word: str) -> float:
    """Read a number from 0 to 1."""
    try:
        number = float(word)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"must be a share between 0 and 1; got {word}")
    return number


def positive(word: str) -> int:
    """Read a whole number from 1 on."""
    if not word.lstrip("-").isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number and at least 1; got {word}")
    return int(word)
