"""Whether a value of a config has the type that a signature wants."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any


def hints_of(target: Callable[..., Any]) -> dict[str, Any]:
    """Return the types of a signature; nothing if they name what is imported for types alone."""
    try:
        return typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except NameError:
        return {}


def wanted_instead(value: Any, hint: Any) -> str | None:
    """Say in words which type is wanted instead of that of ``value``; None: it fits."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    choices = typing.get_args(hint) if union else (hint,)
    kinds = [typing.get_origin(choice) or choice for choice in choices]
    if any(kind is Any or not isinstance(kind, type) for kind in kinds):
        return None
    allowed = (*kinds, int) if float in kinds else tuple(kinds)
    if isinstance(value, allowed) and (not isinstance(value, bool) or bool in kinds):
        return None
    return " or ".join(_plain(kind) for kind in kinds)


def _plain(kind: type) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    other = "a list" if issubclass(kind, Sequence) else "`key: value` lines"
    return "null" if kind is type(None) else names.get(kind, other)
