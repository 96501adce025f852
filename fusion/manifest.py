"""The manifest of a checkpoint: what its files are, so that damage is found before it is used.

manifest.json has the size and the SHA-256 of every file beside it, and facts about the checkpoint.
It is written last, and has a digest of its own. Any flipped bit of a file or of the manifest, and
any file that is cut short or missing, is found by :func:`check_files`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import Any

import fusion

MANIFEST = "manifest.json"
FORMAT = 1  # raise it when an older program would misread a checkpoint
PACKAGES = ("torch", "accelerate", "safetensors", "numpy")
LARGEST = 64 * 2**20  # bytes of a manifest; more is no manifest
DIGEST, FILES = "digest", "files"

_seen: dict[Path, tuple[Any, ...]] = {}  # folders that were checked, and the state they were in


class DamagedError(ValueError):
    """A file is not as it was written; the message is one line and names the file."""


class NewerError(ValueError):
    """A newer version of the program wrote it; the message is one line."""


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the manifest of all files in a folder, with some ``facts``, ready for JSON."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    content: dict[str, Any] = {"format": FORMAT, **facts, "versions": _versions()}
    content[FILES] = {path.relative_to(folder).as_posix(): _describe(path) for path in files}
    content[DIGEST] = digest_of(content)
    (folder / MANIFEST).write_text(json.dumps(content, indent=1), encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Read the manifest of a folder; None: it has none, as older versions wrote none.

    Raises:
        DamagedError: it is damaged.
        NewerError: this version cannot read it.
    """
    path = folder / MANIFEST
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError("too large")
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or not isinstance(content.get(FILES), dict):
            raise ValueError("no manifest")
        if content.pop(DIGEST, None) != digest_of(content):
            raise ValueError("its digest is another one")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedError(f"{path} is damaged ({_line(error)})") from None
    if not isinstance(number := content.get("format"), int) or number > FORMAT:
        raise NewerError(
            f"{path} has format {number}, and this version of fusion reads up to {FORMAT}; install"
            " the newer version that wrote it"
        )
    return content


def check_files(folder: Path) -> dict[str, Any] | None:
    """Compare the files of a folder with its manifest, and return it; None: it has none.

    Files that the manifest does not name are not looked at. Files that have not changed since this
    process compared them are not read again.

    Raises:
        DamagedError: a file is missing or is not as it was written, or see :func:`read_manifest`.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        return None
    state = _state(folder, manifest)
    if _seen.get(folder.absolute()) != state:
        for name, written in manifest[FILES].items():
            if problem := _compare(folder, name, written):
                raise DamagedError(f"{folder / name} is {problem}")
        _seen[folder.absolute()] = state
    return manifest


def digest_of(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of nested dicts and lists, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _compare(folder: Path, name: str, written: Any) -> str | None:
    """Say how a file differs from what was written; None: it does not."""
    path, parts = folder / name, PurePosixPath(name).parts
    if not isinstance(written, dict) or not parts or ".." in parts or name.startswith("/"):
        return "no file of this folder, but its manifest names it"
    try:
        if path.exists() and not path.is_file():
            return "not a file"
        size = path.stat().st_size
        if size != written.get("size"):
            return f"damaged: {size:,} bytes, and {written.get('size'):,} were written"
        if _describe(path) != written:
            return "damaged: its SHA-256 is not that of what was written"
    except FileNotFoundError:
        return "missing"
    except (OSError, TypeError, ValueError) as error:
        return f"not readable ({_line(error)})"
    return None


def _describe(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"size": path.stat().st_size, "sha256": digest}


def _state(folder: Path, manifest: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what changes when a file of the manifest is written again."""
    found: list[Any] = [digest_of(manifest)]
    for name in manifest[FILES]:
        with contextlib.suppress(OSError, ValueError):
            file = (folder / name).stat()
            found.append((name, file.st_size, file.st_mtime_ns, file.st_ctime_ns, file.st_ino))
    return tuple(found)


def _versions() -> dict[str, str]:
    found = {"fusion": fusion.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
