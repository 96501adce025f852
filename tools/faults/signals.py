"""Tell runs to stop, in every way to launch them; kill one of two processes."""

import os
import signal
import subprocess
import sys

import psutil

from fusion.manifest import check_files
from tests.tiny import write_config
from tools.faults.runs import PATIENCE, TORCHRUN, TRAIN, steps, wait

LAUNCHES = {  # words of Python, overrides, whether the signal goes to the whole group
    "python": ((), (), False),
    "python, 2 workers, group": ((), ("trainer.num_workers=2",), True),
    "accelerate": (("-m", "accelerate.commands.accelerate_cli", "launch", "--cpu"), (), False),
    "torchrun-1": ((*TORCHRUN, "1"), ("trainer.num_workers=1",), False),
    "torchrun-2": ((*TORCHRUN, "2"), ("trainer.num_workers=1",), False),
}


def begin(folder, words, overrides):
    """Start a training in a session of its own and wait for its first logged step."""
    config = write_config(folder, trainer={"epochs": 500, "log_every": 4})
    command = [sys.executable, *words, TRAIN, str(config), *overrides]
    with open(folder / "errors", "w") as errors:
        process = subprocess.Popen(command, stderr=errors, stdout=errors, start_new_session=True)
    wait(lambda: process.poll() is not None or steps(folder / "run"), folder / "errors")
    return process, psutil.Process(process.pid).children(recursive=True)


def try_signals(launches, signals, folder):
    """Tell every launch to stop by every signal; say how it ended and what was saved."""
    result = {}
    for launch in launches:
        words, overrides, group = LAUNCHES[launch]
        for name in signals:
            place = folder / f"{launch}-{name}"
            place.mkdir()
            process, others = begin(place, words, overrides)
            (os.killpg if group else os.kill)(process.pid, getattr(signal, name))
            code = process.wait(PATIENCE)
            _, left = psutil.wait_procs(others, timeout=60)
            said, logged = (place / "errors").read_text(), steps(place / "run")[-1]["step"]
            result[f"{launch}, {name}"] = seen = {
                "exit code": code if code >= 0 else 128 - code,
                "saved": check_files(place / "run" / "last")["step"] >= logged,
                "processes left": len(left),
                "lines that say so": said.count(f"stopped by {name}; go on with resume=true"),
                "tracebacks": said.count("Traceback (most recent"),
                "of the launcher": said.count("distributed/elastic/multiprocessing/api.py"),
            }
            print(f"{launch}, {name}: {seen}", flush=True)
    return result


def try_restart(folder):
    """Kill one of two ranks under ``--max_restarts 1``: it must go on from the checkpoint."""
    overrides = ("trainer.epochs=3", "trainer.save_every=1", "trainer.log_every=1")
    words = (*TORCHRUN, "2", "--max_restarts", "1")
    process, ranks = begin(folder, words, (*overrides, "overwrite=true"))
    ranks[-1].kill()
    code = process.wait(PATIENCE)
    done = [row["step"] for row in steps(folder / "run")]
    return {"exit code": code, "every step once": done == list(range(1, len(done) + 1))}
