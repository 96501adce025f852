"""Processes for tests: forked from one that has imported torch, as the import takes seconds.

A script runs in such a process as from a command line: with its own arguments, environment, output
and exit code; only the charts of pages are left out (:mod:`tests.charts`). On systems where a fork
after these imports is unsafe, each process is a new one.
"""

import contextlib
import gc
import itertools
import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
import time
from multiprocessing.connection import wait
from pathlib import Path

from torch.distributed import TCPStore

from tests import charts, offline

ROOT = Path(__file__).parents[1]
IMPORTED = [
    "fusion.commands.compare",
    "fusion.commands.evaluate",
    "fusion.commands.train",
    "gensim.models",
    "matplotlib.backends.backend_svg",
    "torch._dynamo",  # for the first optimizer
    "torch.utils.tensorboard",
]

context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
if sys.platform == "linux":
    context.set_forkserver_preload(IMPORTED)


def start(*words, output=os.devnull, errors=os.devnull, **environment):
    """Start a script with its words; give its process, which has ``exitcode`` and ``kill``."""
    words = [str(word) for word in words]
    method = multiprocessing.get_start_method()
    arguments = (words, str(output), str(errors), {**os.environ, **environment}, method)
    process = context.Process(target=_run, args=arguments)
    process.start()
    return process


def run(*words, processes=1, timeout=110, **environment):
    """Run a script in so many processes that see each other, as under torchrun.

    The environment is changed after the imports: none of its variables may matter to them.

    Returns:
        Exit code of the first process that failed, or 0; standard output of all, one process after
        the other; standard error likewise.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = [[Path(folder) / f"{name}{rank}" for rank in range(processes)] for name in "oe"]
        for file in itertools.chain(*files):
            file.touch()
        with ranks(processes) as places:
            started = [
                start(*words, output=output, errors=errors, **environment, **place)
                for output, errors, place in zip(*files, places, strict=True)
            ]
            code = _wait(started, timeout)
        return code, *("".join(file.read_text() for file in kind) for kind in files)


@contextlib.contextmanager
def ranks(processes):
    """Give the environment of each of so many processes that see each other, within the block."""
    if processes == 1:
        yield [{}]
        return
    # The store of the launcher: a port that others cannot take before the ranks do.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    yield [_place(rank, processes, store) for rank in range(processes)]


def _place(rank, processes, store):
    place = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": processes,
        "LOCAL_WORLD_SIZE": processes,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": store.port,
        "TORCHELASTIC_USE_AGENT_STORE": True,
        "TORCHELASTIC_RESTART_COUNT": 0,
    }
    return {name: str(value) for name, value in place.items()}


def _wait(started, timeout):
    """Wait for all; at the first that fails, or when time is up, end the others."""
    running, deadline = list(started), time.monotonic() + timeout
    try:
        while running:
            ended = wait([p.sentinel for p in running], deadline - time.monotonic())
            if not ended:
                raise TimeoutError(f"{len(running)} processes still run after {timeout} s")
            for process in [p for p in running if p.sentinel in ended]:
                process.join()
                running.remove(process)
                if process.exitcode:
                    return process.exitcode
        return 0
    finally:
        for process in running:
            process.kill()
            process.join()


def _run(words, output, errors, environment, start_method):
    """Run a script in this process as its only work."""
    gc.freeze()  # what was imported is no garbage
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell ignores it for tests behind &
    multiprocessing.set_start_method(start_method, force=True)  # not that of this process
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(ROOT)
    for number, path in ((1, output), (2, errors)):
        with open(path, "wb") as file:
            os.dup2(file.fileno(), number)
    charts.leave_out()
    offline.refuse()
    sys.argv = words
    sys.path.insert(0, str(ROOT / Path(words[0]).parent))
    runpy.run_path(words[0], run_name="__main__")
