"""The files of configs: recipes, which travel inside the package, and what a file is based on."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from fusion.data.untrusted.yaml_file import read_config

PACKAGE = Path(__file__).parent
_FOLDERS = (PACKAGE / "configs", PACKAGE.parent / "configs")  # installed; a checkout


def find_config(name: str | Path, folder: Path = Path()) -> Path:
    """Return the file of a config: a path, or a recipe's name, such as ``youcook2/finetune``.

    A path is relative to ``folder``.
    """
    path = folder / Path(name).expanduser()
    if path.is_file() or Path(name).is_absolute():
        return path
    recipe = str(name).removeprefix("configs/").removesuffix(".yaml")
    files = [folder / f"{recipe}.yaml" for folder in _FOLDERS]
    return next((file for file in files if file.is_file()), path)


def list_recipes() -> list[str]:
    """List the names of all recipes."""
    folder = next((folder for folder in _FOLDERS if folder.is_dir()), _FOLDERS[0])
    return sorted(f.relative_to(folder).with_suffix("").as_posix() for f in folder.rglob("*.yaml"))


def read_layers(path: str | Path, base: str | None = None) -> list[Any]:
    """Read a config and its bases, the first of them first.

    Args:
        path: see :func:`find_config`. ``base: other.yaml`` in it is relative to the file itself.
        base: a config that replaces the base of the file; relative to the working folder.

    Raises:
        ValueError: a file is missing or no YAML, or the bases form a circle; one line.
    """
    return _read_files(find_config(path), (), base)


def _read_files(path: Path, seen: tuple[Path, ...], other: str | None = None) -> list[Any]:
    path = path.expanduser().resolve()
    if path in seen:
        raise ValueError(f"{path}: its bases lead back to itself")
    try:
        own = read_config(path)
    except FileNotFoundError:
        where = f" (base of {seen[-1]})" if seen else ""
        near = difflib.get_close_matches(path.stem, list_recipes(), n=1)
        hint = f"did you mean the recipe {near[0]}?" if near else "recipes are eao, mcn, own_videos"
        raise ValueError(f"no config at {path}{where}; {hint}") from None
    except IsADirectoryError:
        raise ValueError(f"{path} is a folder; name a config, a .yaml file") from None
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, OSError) as error:
        raise ValueError(f"{path} is not a YAML file that can be read: {_where(error)}") from None
    if not isinstance(own, DictConfig):
        raise ValueError(f"{path} must hold `key: value` lines")
    base, folder = own.pop("base", None), path.parent
    if not isinstance(base, str | None):
        raise ValueError(f"{path}: base is {base!r}; name a config or a recipe, such as eao")
    if other is not None:
        base, folder = other, Path()
    below = () if base is None else _read_files(find_config(base, folder), (*seen, path))
    return [*below, own]


def _where(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    problem = getattr(error, "problem", None) or first
    return f"line {mark.line + 1}: {problem}" if mark else problem
