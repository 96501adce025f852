"""The parts that a config names: of fusion by their name, a user's own by their import path.

``name: my_package.my_module:MyEncoder`` imports a module, which runs its code. So the names in a
config that the user gives are followed, but those in the config of a checkpoint only with `trust`.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def find_part(where: str, name: str, table: Mapping[str, Any]) -> Any:
    """Find a class or a function by its name in a table or by its import path.

    Modules are looked for among the installed packages, then in the folder of the command.

    Args:
        where: the key of the config, for messages.
        name: a key of ``table``, or ``MODULE:NAME``.
        table: the parts of fusion.

    Raises:
        ValueError: there is no such part, or its module cannot be imported; one line.
    """
    if name in table:
        return table[name]
    if not is_own(name):
        raise ValueError(
            f"{where}: unknown {name!r}{nearest(name, list(table), 'choose from')} (a part of your"
            " own is named MODULE:NAME)"
        )
    module, _, attribute = name.partition(":")
    if (here := os.getcwd()) not in sys.path:  # an installed command does not look there
        sys.path.append(here)
    try:
        imported = importlib.import_module(module)
    except Exception as error:  # a mistake of any kind in the user's module
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{where}: {module} cannot be imported ({type(error).__name__}: {reason}); it is looked"
            f" for among installed packages, in PYTHONPATH and in {here}"
        ) from error
    if not hasattr(imported, attribute):
        raise ValueError(f"{where}: {module} has no {attribute!r}; check the name")
    return getattr(imported, attribute)


def is_own(name: str) -> bool:
    """Return whether a name is an import path."""
    return ":" in name


def own_parts(config: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """List the import paths that a config names, each with its key: ``model.name``, ``m:Model``."""
    if isinstance(config, Mapping):
        for key, value in config.items():
            if key == "name" and is_own(str(value)):
                yield f"{where}{key}", str(value)
            yield from own_parts(value, f"{where}{key}.")
    elif isinstance(config, list):
        for place, value in enumerate(config):
            yield from own_parts(value, f"{where}{place}.")


def nearest(key: str, names: Sequence[str], otherwise: str = "known are") -> str:
    """Say which of the names was meant, or what there is."""
    match = difflib.get_close_matches(key, names, n=1)
    return f"; did you mean {match[0]!r}?" if match else f"; {otherwise} {', '.join(names)}"
