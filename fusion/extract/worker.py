"""The program that decodes media files, so that a crash or a hang of FFmpeg costs one file only.

    python -m fusion.extract.worker

It is a program and not a process of a pool: a pool would fork its caller with all its threads, or
import the caller's main program again. It imports no torch, and starts in a third of a second.

It reads tasks from its standard input, one line of JSON each: ``path``, ``audio``, and in
``samplings`` the arguments of a :class:`.Sampling` or a :class:`.Hearing` by field. It writes
messages, see :func:`write_message`, to its standard output: "ready"; then for each task any number
of "piece", and one "end" or "failed".
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import queue
import signal
import sys
import threading
from typing import Any, BinaryIO

import numpy as np
import psutil
from numpy.typing import NDArray

from fusion.data.media.decode import MediaError
from fusion.data.media.film import Film
from fusion.data.media.pictures import Sampling
from fusion.data.media.sound import Hearing


def write_message(file: BinaryIO, values: dict[str, Any], data: NDArray[Any] | None = None) -> None:
    """Write a message: a line of JSON, then the bytes of an array whose shape the JSON has."""
    if data is not None:
        values = values | {"shape": data.shape, "dtype": data.dtype.str}
    file.write(json.dumps(values).encode() + b"\n")
    if data is not None and data.size:  # memoryview cannot cast what is empty
        file.write(np.ascontiguousarray(data).data.cast("B"))
    file.flush()


def read_message(file: io.BufferedReader) -> tuple[dict[str, Any], NDArray[Any] | None] | None:
    """Read a message; None: there are no more. EOFError or ValueError: it is incomplete."""
    line = file.readline()
    if not line:
        return None
    values = json.loads(line)
    if "shape" not in values:
        return values, None
    data = np.empty(values["shape"], values["dtype"])
    if data.size and file.readinto(data.data.cast("B")) < data.nbytes:
        raise EOFError
    return values, data


def main() -> None:
    """Decode files until the program that started this one ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program that started this one
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get between the messages
    _limit_memory()
    tasks: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(tasks,), daemon=True).start()
    write_message(output, {"kind": "ready"})
    while True:
        task = json.loads(tasks.get())
        samplings = {
            field: Hearing(**arguments) if "rate" in arguments else Sampling(**arguments)
            for field, arguments in task["samplings"].items()
        }
        _send(Film(task["path"], samplings, task["audio"]), output)


def _listen(tasks: queue.SimpleQueue[str]) -> None:
    """Take tasks; exit, even while FFmpeg hangs, when the program that gives them has ended."""
    for line in sys.stdin:
        tasks.put(line)
    os._exit(0)


def _send(film: Film, output: BinaryIO) -> None:
    path = film.path
    try:
        before = path.stat()
        for piece in film.pieces():
            values = {"kind": "piece", "field": piece.field, "seconds": piece.seconds}
            write_message(output, values, piece.data)
        after = path.stat()
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise MediaError(f"{path}: it changed while it was read; run this again")
        end = {"kind": "end", "seconds": film.seconds, "problems": film.problems}
        write_message(output, end | {"size": after.st_size, "mtime": int(after.st_mtime)})
        return
    except BrokenPipeError:
        os._exit(0)
    except MediaError as error:
        problem = str(error)
    except MemoryError:
        problem = f"{path}: needs more than half of this machine's memory; convert it to mp4"
    except OSError as error:
        problem = f"{path}: cannot be read ({error.strerror}); check the disk"
    except Exception as error:  # any error of a library costs only this file
        words = " ".join(f"{type(error).__name__} {error}".split())
        problem = f"{path}: cannot be read ({words}); convert it to mp4"
    write_message(output, {"kind": "failed", "problem": problem})


def _limit_memory() -> None:
    """Make a file that needs too much memory fail before the machine does."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # not on every platform
        import resource

        half = psutil.virtual_memory().total // 2
        resource.setrlimit(resource.RLIMIT_AS, (half, resource.getrlimit(resource.RLIMIT_AS)[1]))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
