"""Signals and processes: end with the process that started this one; leave stopping to it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

# What asks a program to stop: a scheduler, Ctrl-C, a terminal that is closed (not on Windows).
STOPS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)
)
_PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>
_LOOK = 1.0  # seconds between two looks for the parent, where the system does not tell


def end_with_parent(number: int = getattr(signal, "SIGKILL", signal.SIGTERM)) -> None:
    """Send this process a signal when the process that started it has ended, however it ended."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number))
        if os.getppid() != parent:  # it ended before the call
            os.kill(os.getpid(), number)
    elif hasattr(os, "getppid") and sys.platform != "win32":
        threading.Thread(target=_watch, args=(parent, number), daemon=True).start()


def end_soon_after_parent(seconds: float) -> None:
    """End this process, whatever it does, so many seconds after the one that started it.

    A process that waits inside a library, such as for one that is gone, answers no signal.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK)
        time.sleep(seconds)
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _watch(parent: int, number: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os.kill(os.getpid(), number)


def leave_stopping_to_parent(*_: object) -> None:
    """In a process that works for another one: ignore what asks to stop, and end with that one.

    Schedulers and terminals send such a signal to all processes at once. One that ended at once
    would fail the one that it works for, which wants to save its state first.
    """
    end_with_parent()
    ignore_stops()
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)


def ignore_stops() -> None:
    """Ignore what asks this process to stop, as it is ending already."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def stops_blocked() -> Iterator[None]:
    """Hold back what asks to stop until the end of the block; processes started in it, too."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
