"""A program that decodes media files and sends what it finds, so that its end costs one file.

    python -m fusion.extract.worker

FFmpeg reads what strangers made: it may crash, hang, or ask for all memory there is. A program of
its own, not a process of a pool: a pool would fork its caller with all its threads, or import the
caller's main program again. It imports no torch, and starts in a third of a second.

It reads tasks from its standard input, JSON on one line each: ``path``, ``audio``, and in
``samplings`` the arguments of a :class:`.Sampling` by field. It writes messages, see
:func:`write_message`, to what was its standard output: "ready"; then for each task any number of
"piece", and "end" or "failed".
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import queue
import signal
import struct
import sys
import threading
from typing import Any, BinaryIO

import numpy as np
import psutil
from numpy.typing import NDArray

from fusion.data.media.decode import MediaError
from fusion.extract.decoding import Film
from fusion.extract.sampling import Sampling

_LENGTHS = struct.Struct("<IQ")  # bytes of JSON, bytes of data


def write_message(file: BinaryIO, values: dict[str, Any], data: NDArray[Any] | None = None) -> None:
    """Write a message: two lengths, JSON, and the bytes of an array whose shape the JSON has."""
    if data is not None:
        values = values | {"shape": data.shape, "dtype": data.dtype.str}
    text = json.dumps(values).encode()
    block = memoryview(b"") if data is None else np.ascontiguousarray(data).data.cast("B")
    file.write(_LENGTHS.pack(len(text), len(block)))
    file.write(text)
    file.write(block)
    file.flush()


def read_message(file: io.BufferedReader) -> tuple[dict[str, Any], NDArray[Any] | None] | None:
    """Read a message; None: there will be no more.

    Raises:
        EOFError: it breaks off.
    """
    begin = file.read(_LENGTHS.size)
    if not begin:
        return None
    if len(begin) < _LENGTHS.size:
        raise EOFError
    text_length, length = _LENGTHS.unpack(begin)
    text, block = file.read(text_length), bytearray(length)
    if len(text) < text_length or file.readinto(block) < length:
        raise EOFError
    values = json.loads(text)
    if "shape" not in values:
        return values, None
    return values, np.frombuffer(block, values["dtype"]).reshape(values["shape"])


def main() -> None:
    """Decode files until there is nothing more to do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever started this
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints must not disturb the messages
    _limit_memory()
    tasks: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(tasks,), daemon=True).start()
    write_message(output, {"kind": "ready"})
    while True:
        task = json.loads(tasks.get())
        samplings = {f: Sampling(**arguments) for f, arguments in task["samplings"].items()}
        _send(Film(task["path"], samplings, task["audio"]), output)


def _listen(tasks: queue.SimpleQueue[str]) -> None:
    """Hear at once, even while FFmpeg hangs, that whoever started this is gone."""
    for line in sys.stdin:
        tasks.put(line)
    os._exit(0)


def _send(film: Film, output: BinaryIO) -> None:
    try:
        before = film.path.stat()
        for piece in film.pieces():
            values = {"kind": "piece", "field": piece.field, "seconds": piece.seconds}
            write_message(output, values, piece.data)
        after = film.path.stat()
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise MediaError(f"{film.path}: it changed while it was read; run this again")
        end = {"kind": "end", "seconds": film.seconds, "problems": film.problems}
        write_message(output, end | {"size": after.st_size, "mtime": int(after.st_mtime)})
    except BrokenPipeError:
        os._exit(0)
    except MediaError as error:
        write_message(output, {"kind": "failed", "problem": str(error)})
    except MemoryError:
        problem = "needs more than half of this machine's memory; convert it to mp4"
        write_message(output, {"kind": "failed", "problem": f"{film.path}: {problem}"})
    except OSError as error:
        problem = f"{film.path}: cannot be read ({error.strerror}); check the disk"
        write_message(output, {"kind": "failed", "problem": problem})
    except Exception as error:  # of any library: it must cost one file only
        words = " ".join(f"{type(error).__name__} {error}".split())
        problem = f"{film.path}: cannot be read ({words}); convert it to mp4"
        write_message(output, {"kind": "failed", "problem": problem})


def _limit_memory() -> None:
    """Let a file that asks for too much fail before the machine does."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # not everywhere
        import resource

        half = psutil.virtual_memory().total // 2
        resource.setrlimit(resource.RLIMIT_AS, (half, resource.getrlimit(resource.RLIMIT_AS)[1]))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
