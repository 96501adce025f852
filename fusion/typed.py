"""Values as the user typed them: overrides of a config, and paths with ``~`` and variables."""

from __future__ import annotations

import math
import os
import re
import unicodedata
from collections.abc import Callable, Container, Mapping
from typing import Any

_WORD = re.compile(r"(?=.*\w)[\w.+-]+")  # only such can be a number, true, false or null
_FOLDER_VARIABLE = re.compile(r"(?:^|/)\$(?:(\w+)|\{(\w+)\})(?=/|$)")


def read_value(key: str, text: str) -> Any:
    """Read the value of an override.

    It is a number, true, false or null as in YAML; a list or ``key: value`` pairs, if it begins
    with ``[`` or ``{``; what is inside, if it is in quotes; otherwise the text, as it was typed.

    Raises:
        ValueError: a bracket or a quote is not closed, or it is ``~`` alone; one line.
    """
    word = text.strip()
    if word == "~":
        raise ValueError(f"{key}=~ may mean null or a folder; write {key}=null or {key}=~/")
    if not word:
        return None
    if word[0] in "[{" or (word[0] in "\"'" and word[-1] == word[0] and len(word) > 1):
        try:
            return _from_yaml(word)
        except ValueError:
            quoted = "'" + word.replace("'", "''") + "'"
            raise ValueError(
                f"{key}={text} is neither a list nor a text in quotes; if it is a text, write"
                f' "{key}={quoted}"'
            ) from None
    value = _from_yaml(word) if _WORD.fullmatch(word) else text
    return text if isinstance(value, str) else value


def _from_yaml(text: str) -> Any:
    import yaml  # slow, and not needed for the help of a command
    from omegaconf import OmegaConf

    try:
        values: Any = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]))
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    return values["value"]


def read_override(override: str, texts: Container[str] = ()) -> tuple[str, Any]:
    """Split ``trainer.epochs=1`` into the key and its value.

    The values of the keys in ``texts`` are texts also where they look like numbers.

    Paths are written in full, see :func:`expand`.

    Raises:
        ValueError: there is no ``=``, or the value cannot be read; one line.
    """
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ValueError(f"override {override!r} must be key=value, such as trainer.epochs=1")
    value = read_value(key.strip(), text)
    if isinstance(value, bool | int | float) and key.strip() in texts:
        value = text
    interpolated = "${" in text  # by another key; such values are expanded when that is known
    return key.strip(), value if interpolated else expand_all(value, key.strip())


def expand(text: str) -> str:
    """Write a path in full: ``~``, ``$VARIABLE``, and the spelling of its letters on the disk.

    Accents may be letters of their own or not (Unicode NFD and NFC), and file systems keep one of
    both. A text without ``~`` or ``$`` whose file is there comes back as it is.

    Raises:
        ValueError: a folder is named by a variable that is not set.
    """
    path = os.path.expanduser(text) if text.startswith("~") else text
    if "$" in path:
        path = os.path.expandvars(path)
        if (unset := _FOLDER_VARIABLE.search(path)) is not None:
            name = unset[1] or unset[2]
            raise ValueError(f"{text}: ${name} is not set; set it, or write the path in full")
    return path if path.isascii() else as_on_disk(path)


def as_on_disk(path: str) -> str:
    """Return the spelling, composed or not, of a path that exists; otherwise the path itself."""
    try:
        if os.path.exists(path):
            return path
        forms = [unicodedata.normalize(form, path) for form in ("NFC", "NFD")]
        return next((form for form in forms if os.path.exists(form)), path)
    except (OSError, ValueError):  # too long a text, or one that no path can be
        return path


def expand_all(values: Any, key: str = "") -> Any:
    """Expand every text in nested lists and dicts, see :func:`expand`; the error names the key."""
    if isinstance(values, Mapping):
        prefix = f"{key}." if key else ""
        return {name: expand_all(value, f"{prefix}{name}") for name, value in values.items()}
    if isinstance(values, list):
        return [expand_all(value, key) for value in values]
    if not isinstance(values, str):
        return values
    try:
        return expand(values)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def check_numbers(config: Mapping[str, Any]) -> None:
    """Raise a ValueError that names a number of a config which is out of range."""
    if (key := _find(config, _is_huge)) is not None:
        raise ValueError(f"{key} is too large a number; it must be below 2 to the power of 63")
    if (found := _find_empty(config.get("model"), "model")) is not None:
        raise ValueError(f"{found[0]} must be at least 1; got {found[1]}")
    if (key := _find(config, _is_not_finite)) is not None:
        raise ValueError(f"{key} must be a finite number")
    if (count := config.get("max_clips")) is not None and count < 1:
        raise ValueError(f"max_clips must be at least 1; got {count}")


def _find_empty(values: Any, key: str) -> tuple[str, Any] | None:
    """Return the key of a width or a number of heads that is not positive, and its value."""
    if not isinstance(values, Mapping):
        named = key.rpartition(".")[2]
        is_width = named.endswith("dim") or named in ("num_heads", "width", "hidden", "num_frames")
        return (key, values) if is_width and type(values) is int and values < 1 else None
    found = (_find_empty(value, f"{key}.{name}") for name, value in values.items())
    return next(filter(None, found), None)


def _find(values: Any, is_wrong: Callable[[Any], bool], key: str = "") -> str | None:
    """Return the key of the first value that is wrong; None: there is none."""
    if isinstance(values, Mapping):
        items = values.items()
        found = (_find(value, is_wrong, f"{key}.{name}".lstrip(".")) for name, value in items)
    elif isinstance(values, list):
        found = (_find(value, is_wrong, key) for value in values)
    else:
        return key if is_wrong(values) else None
    return next(filter(None, found), None)


def _is_huge(value: Any) -> bool:
    """Return whether it is a whole number that does not fit into 64 bits."""
    return isinstance(value, int) and not -(2**63) <= value < 2**63


def _is_not_finite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def variable_meant(error: Exception) -> str:
    """Say how to write a variable of the environment, if a key of its name was not found."""
    found = re.search(r"Interpolation key '(\w+)' not found", str(error))
    name = found[1] if found and found[1] in os.environ else None
    return f"; for the variable of the environment write ${name}" if name else ""
