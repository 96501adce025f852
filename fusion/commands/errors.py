"""Shared error handling of the command-line tools: one-line messages and exit codes."""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
import time
from collections.abc import Callable

from fusion.checkpoint import CheckpointError
from fusion.config import ConfigError
from fusion.distributed import CommunicationError
from fusion.signals import ignore_stops
from fusion.training.launch import LaunchError, Stopped, is_lost_process, stops_raise
from fusion.training.memory import OutOfMemory, is_out_of_memory
from fusion.words import visible

MISTAKE = 2  # exit code
MISTAKES = (  # usually made by all processes alike
    *(ConfigError, CheckpointError, LaunchError, OutOfMemory, FloatingPointError),
    CommunicationError,
)
LAST_WORDS = 20.0  # seconds that the other processes leave the first one to print a message


def run(command: Callable[[], object]) -> None:
    """Call a command; if it fails, print one line and exit with a code.

    With ``FUSION_DEBUG=1`` in the environment it shows the traceback instead.
    """
    if logging.lastResort is not None:  # which prints warnings where nothing else does
        logging.lastResort.setFormatter(_Visible())
    if os.environ.get("FUSION_DEBUG"):
        command()
        return
    try:
        with stops_raise():
            _call(command)
    except Stopped as stop:
        ignore_stops()
        if os.environ.get("LOCAL_RANK", "0") != "0":  # all processes stop: the first one says so
            sys.exit(128 + stop.signal)
        _end(str(stop), 128 + stop.signal)
    except KeyboardInterrupt as stop:
        _end(str(stop) or "interrupted", 128 + signal.SIGINT)
    except MISTAKES as error:
        if os.environ.get("LOCAL_RANK", "0") != "0":
            # Usually all processes fail alike: rank 0 prints, and the launcher kills the others. A
            # process that outlives the wait failed alone, so it prints.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            time.sleep(LAST_WORDS)
        _end(f"error: {_one_line(error)}")
    except (ValueError, OSError) as error:
        if isinstance(error, BrokenPipeError) and _is_output_closed():
            sys.exit(128 + signal.SIGPIPE)  # in silence, as other programs end before "| head"
        _end(f"error: {_one_line(error)}")
    except (RuntimeError, MemoryError) as error:
        if is_lost_process(error):
            _end(
                f"error: another process of this run has ended ({_one_line(error)}); go on with"
                " resume=true"
            )
        if not is_out_of_memory(error):
            raise
        _end(
            "error: out of memory outside of the training steps (those use smaller chunks by"
            " themselves); saved checkpoints are complete: lower evaluation.batch_size and go on"
            f" with resume=true, or use fusion evaluate ({_one_line(error)})"
        )


class _Visible(logging.Formatter):
    """Writes messages as Python does, without what would steer a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record."""
        return visible(super().format(record))


def _call(command: Callable[[], object]) -> None:
    """Call a command and write all its output, also if it ends by ``sys.exit``."""
    try:
        command()
    except SystemExit:
        _flush()
        raise
    _flush()


def _flush() -> None:
    if sys.stdout is not None:  # as it is for a program without terminal and output
        sys.stdout.flush()


def _is_output_closed() -> bool:
    """Tell whether the program that reads the output has gone; what is left of it is dropped."""
    if sys.stdout is None or not hasattr(select, "poll"):  # which Windows has not
        return False
    try:
        place = sys.stdout.fileno()
    except (ValueError, OSError):  # no file
        return False
    poll = select.poll()
    poll.register(place, select.POLLOUT)
    closed = any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    if closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), place)
    return closed


def _one_line(error: Exception) -> str:
    text = str(error).strip()
    if text.startswith("Caught "):  # a DataLoader worker's error comes with its traceback
        text = text.splitlines()[-1].partition(": ")[2]
    return " ".join(text.split()) or type(error).__name__


def _end(message: str, code: int = MISTAKE) -> None:
    encoding = sys.stderr.encoding or "utf-8"  # names of files need not be UTF-8
    message = visible(message).encode(encoding, "backslashreplace").decode(encoding)
    print(message, file=sys.stderr, flush=True)
    sys.exit(code)
