"""Writing files so that nobody ever sees half of one, and where things are cached."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replace_folder(path: str | Path) -> Iterator[Path]:
    """Fill a folder that appears, whole, only when the body of the ``with`` succeeds.

    An existing folder stays readable at ``path`` until the new one is complete; between the two
    renames of the exchange it is found at ``path`` + ``.old``, see :func:`recover_folder`.

    Args:
        path: the folder to create or to replace.

    Yields:
        An empty folder beside ``path`` to write into; removed if the body raises.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f"{path.name}.new-", dir=path.parent))
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _flush_to_disk(file)
        _flush_to_disk(temporary)
        _exchange(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def recover_folder(path: str | Path) -> Path:
    """Undo an exchange that was cut off between its two renames; remove what others left.

    Args:
        path: a folder written by :func:`replace_folder`. No other process may be writing it.

    Returns:
        ``path``, which exists if it was ever complete.
    """
    path = Path(path)
    old = _old(path)
    if old.exists() and not path.exists():
        old.rename(path)
    for leftover in [old, *path.parent.glob(f"{path.name}.new-*")]:
        shutil.rmtree(leftover, ignore_errors=True)
    return path


def write_atomically(path: str | Path, data: str | bytes) -> None:
    """Write a file that is seen either as it was before or complete."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = data.encode() if isinstance(data, str) else data
    descriptor, temporary = tempfile.mkstemp(prefix=f"{path.name}.new-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def missing_folder(path: str | Path) -> str:
    """Say which folder on the way to a file is not there: `` (there is no folder …)``, or nothing.

    A mistyped folder shows so, however much of a path a program has added to it.
    """
    if "://" in str(path):
        return ""
    lost = [folder for folder in Path(path).absolute().parents if not folder.exists()]
    return f" (there is no folder {lost[-1]})" if lost else ""


def cache_folder() -> Path:
    """Name the folder for what can be made again: ``FUSION_CACHE``, else the platform's own."""
    if chosen := os.environ.get("FUSION_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData/Local")) / "fusion"
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/fusion"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "fusion"


def _exchange(new: Path, path: Path) -> None:
    os.chmod(new, 0o755)  # mkdtemp made it private
    old = _old(path)
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
        path.rename(old)
    new.rename(path)
    _flush_to_disk(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def _old(path: Path) -> Path:
    return path.with_name(f"{path.name}.old")


def _flush_to_disk(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open folders
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
