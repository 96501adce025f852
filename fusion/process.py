"""What this process uses of the machine."""

from __future__ import annotations

import sys
from pathlib import Path

STATUS = Path("/proc/self/status")


def memory_now() -> int:
    """Return the bytes of memory that this process holds; 0 where that is not known."""
    return _of_status("VmRSS")


def memory_at_peak() -> int:
    """Return the most bytes of memory that this process ever held; 0 where that is not known.

    On Linux this is not ``ru_maxrss``: a new process takes over that of the process that started
    it, so a small program that a large one starts would seem to be large.
    """
    if found := _of_status("VmHWM"):
        return found
    if sys.platform == "win32":
        return 0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _of_status(name: str) -> int:
    """Read a line of Linux's description of this process; 0: there is none."""
    try:
        lines = STATUS.read_text("utf-8").splitlines()
    except OSError:
        return 0
    found = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return int(found[0]) * 1024 if found else 0
