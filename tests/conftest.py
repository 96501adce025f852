import gc
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fusion.signals import STOPS
from tests import charts, offline
from tests.once import Once
from tests.processes import ROOT
from tests.processes import run as run_processes

PYTHON = (sys.executable,)
LONGEST = ("test_step.py", "test_tools.py")  # they start several processes, one after the other

frozen = SimpleNamespace(modules=0)  # how many were imported when garbage was last looked for

# One thread, in the tests and in what they start: two cores run two tests. OMP_NUM_THREADS=2 is
# obeyed: results must not depend on the number of threads.
THREADS = int(os.environ.setdefault("OMP_NUM_THREADS", "1"))
torch.set_num_threads(THREADS)


# nohup starts programs that ignore SIGHUP; tests send it.
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items):
    """Begin with the longest tests: at the end, a worker would wait for them."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_collection_finish():
    """Nothing of what was imported is garbage; each training looks for some, at its end."""
    gc.collect()
    gc.freeze()
    frozen.modules = len(sys.modules)


@pytest.hookimpl(tryfirst=True)  # before the fixtures
def pytest_runtest_setup():
    """Forget what Accelerate leaves behind: a run would take this process for a launched one."""
    os.environ.pop("ACCELERATE_MIXED_PRECISION", None)
    torch.set_num_threads(THREADS)


def pytest_runtest_teardown():
    """Nor is what was imported since by a test, such as torch._dynamo."""
    if len(sys.modules) > frozen.modules + 100:
        pytest_collection_finish()


@pytest.fixture(autouse=True)
def signals_as_before():
    """Undo what commands change: one that was asked to stop ignores further signals."""
    before = {number: signal.getsignal(number) for number in STOPS}
    yield
    for number, handler in before.items():
        if handler is not None:
            signal.signal(number, handler)


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """Folders that are made once, for all workers (:class:`tests.once.Once`)."""
    own = tmp_path_factory.getbasetemp()
    return Once(own.parent if "PYTEST_XDIST_WORKER" in os.environ else own)


@pytest.fixture(scope="session", autouse=True)
def private_cache(once):
    """Keep the tests out of the user's cache; FUSION_TEST_CACHE keeps one between runs.

    All workers have one, so that the corpus is rendered once.
    """
    folder = Path(os.environ.get("FUSION_TEST_CACHE") or once.root / "cache")
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["FUSION_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def no_network():
    """No test needs another machine."""
    patches = offline.refuse()
    yield
    for patch in patches:
        patch.stop()


@pytest.fixture(scope="session", autouse=True)
def no_charts():
    """Leave the charts out of the pages of runs, until it is undone."""
    with pytest.MonkeyPatch.context() as patch:
        charts.leave_out(patch.setattr)
        yield patch


@pytest.fixture(scope="session")
def tool():
    """Run one of the tools as a user would: (exit code, standard output, standard error).

    With a ``launcher``, such as Python itself, it starts anew; otherwise in ``processes`` that have
    imported torch already (:mod:`tests.processes`).
    """

    def run(*words, launcher=(), timeout=110, **how):
        if not launcher:
            return run_processes(*words, timeout=timeout, **how)
        command = [*launcher, *map(str, words)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.fixture(scope="module")
def local_ray():
    """Keep a Ray of this machine with two workers: starting one takes seconds.

    It ends with the module: other tests look at the children of this process.
    """
    from fusion.extract.ray_start import running

    with running(None, 2) as ray:
        yield ray
