"""Write files and folders whole or not at all, lock files, find the cache, count the cores."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

FLUSHES = 8  # files at a time; a disk takes several as fast as one


@contextlib.contextmanager
def replace_folder(path: str | Path) -> Iterator[Path]:
    """Create or replace a folder, which appears, whole, when the body of the ``with`` succeeds.

    An existing folder stays readable at ``path`` until the new one is complete. It is then renamed
    to ``path`` + ``.old``, before the new one is renamed to ``path``; see :func:`recover_folder`.

    Yields an empty folder beside ``path`` to write into, which is removed if the body raises.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f"{path.name}.new-", dir=path.parent))
    try:
        yield temporary
        with ThreadPoolExecutor(FLUSHES) as pool:
            list(pool.map(flush_to_disk, (f for f in temporary.rglob("*") if f.is_file())))
        flush_to_disk(temporary)
        os.chmod(temporary, 0o755)  # mkdtemp made it private
        old = path.with_name(f"{path.name}.old")
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
            path.rename(old)
        temporary.rename(path)
        flush_to_disk(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def recover_folder(path: str | Path) -> Path:
    """Undo an exchange that was stopped between its two renames; remove temporary folders.

    No other process may be writing the folder. Returns ``path``, which exists if it was ever
    complete.
    """
    path = Path(path)
    old = path.with_name(f"{path.name}.old")
    if old.exists() and not path.exists():
        old.rename(path)
    for leftover in [old, *path.parent.glob(f"{path.name}.new-*")]:
        shutil.rmtree(leftover, ignore_errors=True)
    return path


def write_atomically(path: str | Path, *blocks: Any) -> None:
    """Write a file; readers see it as it was before, or complete. Its folder is created.

    ``blocks``, the content in parts, are texts or have a buffer, such as bytes or arrays.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f"{path.name}.new-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            for block in blocks:
                file.write(block.encode() if isinstance(block, str) else block)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def flush_to_disk(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, are on the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open folders
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock(descriptor: int, *, shared: bool = False, wait: bool = False) -> bool:
    """Lock an open file until it is closed or the process dies; False where that is impossible.

    BlockingIOError: another process has locked it, unless this one is to ``wait``.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no advisory locks
        return False
    try:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def unlock(descriptor: int) -> None:
    """Undo :func:`lock`, also for the copies of the file that forked processes have."""
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_UN)


def missing_folder(path: str | Path) -> str:
    """Name the first folder of a path that does not exist, as `` (there is no folder …)``, else "".

    It shows a mistyped folder even if a program added more to the path.
    """
    if "://" in str(path):
        return ""
    lost = [folder for folder in Path(path).absolute().parents if not folder.exists()]
    return f" (there is no folder {lost[-1]})" if lost else ""


def cache_folder() -> Path:
    """Return the folder for files that can be made again: ``FUSION_CACHE``, or the platform's."""
    if chosen := os.environ.get("FUSION_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData/Local")) / "fusion"
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/fusion"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "fusion"


def num_cores() -> int:
    """Count the cores that this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)  # not on every platform
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def write_once(path: Path, content: str) -> None:
    """Write a file unless it is there; of several processes at once, the first one writes it."""
    if path.exists():
        return
    new = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    write_atomically(new, content)
    try:
        os.link(new, path)  # unlike a rename, this does not replace a file
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)
