import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]

# One thread, in the tests and in what they start: two cores run two tests. OMP_NUM_THREADS=2 is
# obeyed: results must not depend on the number of threads.
torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", "1")))


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory):
    """Keep the tests out of the user's cache; FUSION_TEST_CACHE keeps one between runs."""
    folder = os.environ.get("FUSION_TEST_CACHE") or tmp_path_factory.mktemp("cache")
    os.environ["FUSION_CACHE"] = str(folder)
    return Path(folder)


@pytest.fixture(scope="session")
def tool():
    """Run one of the tools as a user would: (exit code, standard output, standard error)."""

    def run(*words, launcher=(sys.executable,), timeout=110, **environment):
        done = subprocess.run(
            [*launcher, *map(str, words)],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        return done.returncode, done.stdout, done.stderr

    return run
