"""Train the settings of a study: several at once, each in a process of its own."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from fusion.config import ConfigError, load_config
from fusion.study.plan import Plan, Setting, overrides_of

DONE = "results.json"
POLL = 0.2  # seconds


class Job(NamedTuple):
    """One training."""

    setting: Setting
    seed: int
    folder: Path

    @property
    def log(self) -> Path:
        """File of what it prints; beside the folder, which must be empty for a new run."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def is_done(self) -> bool:
        """Whether it has ended and its result can be read."""
        try:
            return isinstance(json.loads((self.folder / DONE).read_text()), dict)
        except (OSError, ValueError):
            return False


def jobs_of(plan: Plan, settings: Sequence[Setting]) -> list[Job]:
    """List the trainings: all settings with the first seed, then with the next.

    Their folders are named after the config, so that another one does not take them for its own.
    """
    config = load_config(plan.config, plan.overrides, own=False) | {"output": ""}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:8]
    runs = Path(plan.output).absolute() / f"runs-{digest}"
    return [
        Job(setting, seed, runs / f"{setting.folder(plan.terms)}-{seed}")
        for seed in plan.seeds
        for setting in settings
    ]


def run_jobs(plan: Plan, jobs: Sequence[Job], at_once: int, devices: int) -> None:
    """Train what is not done yet, ``at_once`` at a time; a job that was stopped goes on.

    Each process has its share of the cores, or one of the ``devices`` in turn.

    Raises:
        ConfigError: a training failed; the others that had begun are finished first.
        KeyboardInterrupt: the trainings are asked to save their state first.
    """
    waiting = [job for job in jobs if not job.is_done]
    running: dict[int, tuple[Job, subprocess.Popen[bytes]]] = {}  # by place
    failed: list[Job] = []
    bar = tqdm(total=len(jobs), initial=len(jobs) - len(waiting), unit="run", desc="study")
    try:
        while (waiting and not failed) or running:
            for place in range(at_once):
                if place not in running and waiting and not failed:
                    job = waiting.pop(0)
                    running[place] = job, _start(plan, job, place, at_once, devices)
            time.sleep(POLL)
            for place, (job, process) in list(running.items()):
                if process.poll() is not None:
                    del running[place]
                    bar.update()
                    if process.returncode or not job.is_done:
                        failed.append(job)
    except BaseException:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.wait()
        raise
    finally:
        bar.close()
    if failed:
        log = failed[0].log
        last = log.read_text(errors="replace").strip().splitlines()[-1:] if log.exists() else []
        raise ConfigError(f"a training failed ({' '.join(last)[:300]}); see {log}, then go on")


def _start(plan: Plan, job: Job, place: int, at_once: int, devices: int) -> subprocess.Popen[bytes]:
    job.folder.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ.copy()
    if devices:
        environment["CUDA_VISIBLE_DEVICES"] = str(place % devices)
    else:
        threads = max(1, (os.cpu_count() or 1) // at_once)
        environment.setdefault("OMP_NUM_THREADS", str(threads))
    overrides = overrides_of(plan, job.setting, job.seed, job.folder)
    words = [sys.executable, "-m", "fusion", "train", plan.config, *overrides]
    with open(job.log, "ab") as log:
        return subprocess.Popen(
            words, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment
        )


def seconds_of(job: Job) -> float | None:
    """Return for how long a job trained and was evaluated; None: it is not known."""
    try:
        cost = json.loads((job.folder / "cost.json").read_text())
        return float(cost["training_seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def estimate(jobs: Sequence[Job], at_once: int, measured: Callable[[Job], float | None]) -> str:
    """Say in words how long the rest takes, by the mean of what is done."""
    done = [seconds for job in jobs if job.is_done and (seconds := measured(job)) is not None]
    left = sum(not job.is_done for job in jobs)
    if not left:
        return "nothing is left to train"
    if not done:
        return f"{left} trainings are left; after the first one an estimate is shown"
    minutes = left * (sum(done) / len(done) + 20) / at_once / 60  # 20 s to start and to evaluate
    return f"{left} trainings are left, about {minutes:.0f} minutes with {at_once} at once"
