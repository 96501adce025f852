"""Runs that faults are injected into: start them, watch them, compare what they left."""

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
from safetensors.torch import load_file

from fusion.manifest import read_manifest
from fusion.training.log import read_metrics
from fusion.training.safety.checkpoints import copies, find_damage
from tests import processes

TRAIN = str(Path(__file__).parents[2] / "tools" / "train.py")  # trials run from any folder
TORCHRUN = ("-m", "torch.distributed.run", "--nproc_per_node")
PATIENCE = 900  # seconds until something that must happen has not
PAUSE = 0.02  # seconds between two looks


def steps(folder):
    """Read the logged steps of a run."""
    return [row for row in read_metrics(folder / "metrics.jsonl") if row["event"] == "train"]


def wait(condition, errors):
    """Wait for something; an error shows what the run said."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise OSError(f"waited in vain: {errors.read_text()[-2000:]}")
        time.sleep(PAUSE)


def result_of(run):
    """Return what a finished run left: losses by step in hexadecimal, digests of all weights."""
    losses = {row["step"]: row["loss"] for row in steps(run)}
    return {
        "losses": losses,
        "hex": {step: loss.hex() for step, loss in losses.items()},
        "sha256": {name: _digest(run / name) for name in ("last", "best")},
    }


def _digest(folder):
    found = hashlib.sha256()
    for name, tensor in sorted(load_file(folder / "model.safetensors").items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.contiguous().numpy().tobytes())
    return found.hexdigest()


def saved_step(run):
    """Return the step of the newest checkpoint that is whole, 0 if there is none."""
    for folder in copies(run):
        if find_damage(folder) is None:
            return read_manifest(folder)["step"]
    return 0


def import_once():
    """Let the process that others are copied from import PyTorch, which takes seconds."""
    process = processes.context.Process(target=time.time)
    process.start()
    process.join()


class Launch:
    """One start of a command, on so many processes.

    They are forked from a process that has imported PyTorch; if ``fresh``, they are new ones, which
    torchrun starts if there are several.
    """

    def __init__(self, words, count, errors, fresh=False):
        self.begun, self._room = time.monotonic(), contextlib.ExitStack()
        self._errors, self._processes = errors, []
        if fresh:
            python = (*TORCHRUN, str(count)) if count > 1 else ()
            with open(errors, "ab") as file:
                started = subprocess.Popen(
                    [sys.executable, *python, *words],
                    stdout=file,
                    stderr=file,
                    start_new_session=True,
                )
            self._processes.append(started)
        else:
            for rank, place in enumerate(self._room.enter_context(processes.ranks(count))):
                own = errors.with_name(f"{errors.name}{rank}")
                self._processes.append(processes.start(*words, errors=own, **place))
                self._errors = errors.with_name(f"{errors.name}0")

    def codes(self):
        """Return the exit codes of the processes that have ended."""
        return [code for code in map(_code, self._processes) if code is not None]

    def has_ended(self):
        """Return whether all processes have ended."""
        return len(self.codes()) == len(self._processes)

    def finish(self):
        """Wait for its end, which must be a good one."""
        wait(self.has_ended, self._errors)
        self._room.close()
        if any(self.codes()):
            said = self._errors.read_text()[-3000:]
            raise OSError(f"a run ended with {self.codes()}: {said}")

    def kill(self, number=signal.SIGKILL):
        """Send a signal to all processes at once and wait for their end.

        SIGKILL goes to what they started, too. Returns how many others are left. One that has not
        ended after ``PATIENCE`` is an error.
        """
        mains = [psutil.Process(p.pid) for p in self._processes if _code(p) is None]
        children = []
        for process in mains:
            with contextlib.suppress(psutil.NoSuchProcess):
                children += process.children(recursive=True)
        fresh = isinstance(self._processes[0], subprocess.Popen)
        ranks = [c for c in children if _is_rank(c)] if number == signal.SIGKILL and fresh else []
        for process in [*mains, *ranks]:  # workers that read must end by themselves
            with contextlib.suppress(psutil.NoSuchProcess):
                os.kill(process.pid, number)
        wait(self.has_ended, self._errors)
        self._room.close()
        return len(psutil.wait_procs(children, timeout=60)[1])


def _code(process):
    return process.poll() if isinstance(process, subprocess.Popen) else process.exitcode


def _is_rank(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        return TRAIN in process.cmdline()
    return False


def first_new_step(run, done, rewritten):
    """Return whether a run that went on from a step has logged the next one.

    ``rewritten`` says whether it has dropped from its log the steps that were not saved.
    """
    logged = steps(run)
    if not rewritten and logged and logged[-1]["step"] > done:
        return False, False
    return True, bool(logged) and logged[-1]["step"] > done


def log_of(run):
    """Return what tells one file of metrics from the next."""
    path = Path(run) / "metrics.jsonl"
    return path.stat().st_ino if path.exists() else None
