"""Follow a pickle in a program with limits, before this program follows it.

    python -m fusion.data.untrusted.limited KIND PATH

A pickle of 70 bytes can keep Python busy for years, and one of 200,000 crashes it: the hash of a
tuple in a tuple in a tuple is computed by a recursion in C, which no signal interrupts. No check of
the bytes tells such files from others, but a program that does the work, and may be ended, does.
It gives nothing back: what it did without harm, the caller does again.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import subprocess
import sys
from pathlib import Path

from fusion.data.untrusted.unpickler import refuse

FULL = 70  # exit code: no memory is left
SMALL = 2**16  # bytes; in so few the keys cannot collide often enough to matter
FEW = 24  # tuples; 2**24 hashes of one in another take a second
SECONDS, BYTES_PER_SECOND = 20, 2**20  # of the processor, and what is added for a larger file
MEMORY, TIMES_LARGER = 2 * 2**30, 40  # bytes of addresses, and what is added for each byte
_TUPLES = (b"\x85", b"\x86", b"\x87", b"t", b"\x91")  # what makes tuples and frozen sets


def may_take_long(content: bytes | mmap.mmap) -> bool:
    """Tell whether a pickle has so many tuples or keys that it may take long to follow."""
    if len(content) > SMALL:
        return True
    return sum(bytes(content).count(code) for code in _TUPLES) > FEW


def follow_elsewhere(path: str | Path, size: int, kind: str = "pickle") -> None:
    """Follow a file of ``size`` bytes in a program of its own, where that is possible.

    Raises :class:`.unpickler.Refused` if it takes too long, needs too much memory or crashes. All
    other errors are left to the caller's own reading, which names them.
    """
    if os.name != "posix":
        return
    seconds = SECONDS + size // BYTES_PER_SECOND
    limits = f"{seconds} {MEMORY + TIMES_LARGER * size}"
    command = [sys.executable, "-P", "-m", "fusion.data.untrusted.limited", kind, str(path), limits]
    root = str(Path(__file__).parents[3])
    environment = {"PYTHONPATH": root, "PATH": os.environ.get("PATH", ""), "OMP_NUM_THREADS": "1"}
    environment |= {"OPENBLAS_NUM_THREADS": "1"}
    with contextlib.suppress(subprocess.TimeoutExpired):
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=20 * seconds,  # of a machine that does much else
            check=False,
        )
        if done.returncode >= 0 and done.returncode != FULL:
            return
    refuse("it takes for ever, fills the memory or crashes Python")


def _limit(seconds: int, memory: int) -> None:
    import resource

    wanted = {resource.RLIMIT_CPU: seconds, resource.RLIMIT_AS: memory}
    for kind, most in (wanted | {resource.RLIMIT_FSIZE: 0, resource.RLIMIT_CORE: 0}).items():
        with contextlib.suppress(OSError, ValueError):  # a lower limit is set already
            resource.setrlimit(kind, (most, most))


def main(kind: str, path: str, limits: str) -> int:
    """Follow a file; whatever is wrong with it is for the caller to say. Returns the exit code."""
    from fusion.data.untrusted.pickle import follow
    from fusion.data.untrusted.torch_file import TorchFile

    seconds, memory = map(int, limits.split())
    _limit(seconds, memory)
    try:
        if kind == "torch":
            TorchFile(Path(path), alone=True)
        else:
            follow(path)
    except MemoryError:
        return FULL
    except Exception:
        return 1
    return 0


if __name__ == "__main__":
    os._exit(main(*sys.argv[1:]))  # without taking a deeply nested value apart, which may crash
