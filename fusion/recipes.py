"""The recipes of ``configs/``, which travel inside the package."""

from __future__ import annotations

from pathlib import Path

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
