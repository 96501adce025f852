import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.processes import ROOT
from tests.processes import run as run_processes

PYTHON = (sys.executable,)

# One thread, in the tests and in what they start: two cores run two tests. OMP_NUM_THREADS=2 is
# obeyed: results must not depend on the number of threads.
torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", "1")))


def pytest_collection_finish():
    """Nothing of what was imported is garbage; each training looks for some, at its end."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory):
    """Keep the tests out of the user's cache; FUSION_TEST_CACHE keeps one between runs."""
    folder = os.environ.get("FUSION_TEST_CACHE") or tmp_path_factory.mktemp("cache")
    os.environ["FUSION_CACHE"] = str(folder)
    return Path(folder)


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
