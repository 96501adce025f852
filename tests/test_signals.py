"""Processes that end with the one that started them, and signals that are left to it."""

import signal
import subprocess
import sys
import textwrap
import threading
import time

import psutil
import pytest

from fusion.signals import STOPS, stops_blocked
from tests.processes import ROOT

CHILD = (
    "from fusion import signals; import time; signals.{call}; print('ready', flush=True);"
    " time.sleep(60)"
)
PARENT = """
    import subprocess, sys, time
    child = subprocess.Popen([sys.executable, "-c", {child!r}], stdout=subprocess.PIPE, text=True)
    child.stdout.readline()
    print(child.pid, flush=True)
    time.sleep(60)
"""


def start(child):
    """Start a process whose child runs some code; give it, and its child."""
    words = [sys.executable, "-c", textwrap.dedent(PARENT).format(child=child)]
    parent = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    return parent, psutil.Process(int(parent.stdout.readline()))


def ends(process, seconds=10.0):
    deadline = time.monotonic() + seconds
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.mark.parametrize(
    "call", ["end_with_parent()", "leave_stopping_to_parent()", "end_soon_after_parent(0.2)"]
)
def test_f05_a_process_ends_with_the_one_that_started_it(call):
    parent, child = start(CHILD.format(call=call))
    parent.kill()
    parent.wait()
    assert ends(child)


def test_f05_without_the_call_it_goes_on():
    parent, child = start(CHILD.format(call="STOPS"))
    parent.kill()
    parent.wait()
    assert not ends(child, 0.5)
    child.kill()


def test_f02_a_worker_leaves_stopping_to_the_process_it_works_for():
    parent, child = start(CHILD.format(call="leave_stopping_to_parent()"))
    for number in STOPS:
        child.send_signal(number)
    assert not ends(child, 0.5)
    parent.kill()
    parent.wait()
    assert ends(child)


def test_blocked_stops_arrive_after_the_block():
    got = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: got.append(number))
    try:
        with stops_blocked():
            # Of this thread, as the mask: another thread might take one of the process.
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
            time.sleep(0.01)
            assert not got
        time.sleep(0.01)
        assert got == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
