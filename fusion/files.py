"""Write files and folders whole or not at all, lock files, find the cache, count the cores."""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, TypeVar

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

# What a disk or a network says now and then, and what is over a moment later
PASSING = (errno.EIO, errno.EAGAIN, errno.ETIMEDOUT, errno.ESTALE)
PAUSES = (0.1, 0.5, 2.0)  # seconds before another attempt
FLUSHES = 8  # files at a time; a disk takes several as fast as one


@contextlib.contextmanager
def replace_folder(path: str | Path, keep: int = 1) -> Iterator[Path]:
    """Create or replace a folder, which appears, whole, when the body of the ``with`` succeeds.

    An existing folder stays readable at ``path`` until the new one is complete. It is then renamed
    to ``path`` + ``.old``, before the new one is renamed to ``path``; see :func:`recover_folder`.
    If ``keep`` is more than one, so many folders are kept: ``path`` and, the older the higher,
    ``path.1``, ``path.2`` and so on.

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
        chain = [path, *(path.with_name(f"{path.name}.{number}") for number in range(1, keep))]
        old = chain[-1].with_name(f"{chain[-1].name}.old")
        if path.is_symlink():
            logger.warning("%s was a link; a folder takes its place, what it led to stays", path)
        if path.exists() or path.is_symlink():
            remove_folder(old)
            for older, newer in itertools.pairwise([old, *reversed(chain)]):
                if newer.exists() or newer.is_symlink():
                    newer.rename(older)
        temporary.rename(path)
        flush_to_disk(path.parent)
        remove_folder(old)
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
    if old.exists() and not path.exists() and not path.is_symlink():
        old.rename(path)
    for leftover in [old, *path.parent.glob(f"{path.name}.new-*")]:
        remove_folder(leftover)
    return path


def remove_folder(folder: Path) -> None:
    """Remove a folder, of a link the link alone."""
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


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
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            raise _named(error, path) from error
        raise


def append_text(path: Path, text: str) -> None:
    """Add a text to the end of a file; after an error its old end is still its end.

    OSError: the disk is full, or the file cannot be written; it has the file's name.
    """
    try:
        with open(path, "ab") as file:
            end = file.tell()
            try:
                file.write(text.encode())
                file.flush()
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(end)  # half a line
                raise
    except OSError as error:
        raise _named(error, path) from error


def _named(error: OSError, path: Path) -> OSError:
    """Add the file to an error of writing: a full disk does not say where."""
    return OSError(error.errno, f"{error.strerror}, while writing", str(path))


def open_lock(path: str | Path) -> IO[bytes]:
    """Open a file for :func:`lock`, and make it if it is not there; its content stays.

    OSError: it is a link, through which another file would be opened, or cannot be written.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        return os.fdopen(os.open(path, flags, 0o644), "r+b", buffering=0)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(
                errno.ELOOP, "is a link, and must be a file; remove it", str(path)
            ) from None
        raise


def patiently(read: Callable[[], Result]) -> Result:
    """Read something, and again after a pause if the disk or the network failed for a moment.

    Raises:
        OSError: it cannot be read, also not after three pauses.
    """
    for pause in PAUSES:
        try:
            return read()
        except OSError as error:
            if error.errno not in PASSING:
                raise
            time.sleep(pause)
    return read()


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
