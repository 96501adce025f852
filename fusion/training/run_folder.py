"""The folder of a run: its lock and its files.

config.yaml    the resolved config           metrics.jsonl  one line per logged step
best/          checkpoint of the best epoch  tensorboard/   the same as curves
last/          newest checkpoint, with all that is needed to continue; last.1/ is the one before
results.json   table of the test             ranks.npz      place of every query's target
cost.json      time, memory, arithmetic      report.html    all of it as a page
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from fusion.checkpoint import CONFIG, WEIGHTS, CheckpointError
from fusion.config import ConfigError, load_config, to_yaml
from fusion.files import lock, open_lock, recover_folder, remove_folder, write_atomically
from fusion.training.launch import is_restart_of, launch_name, warn
from fusion.training.safety.changes import check_changes, describe_changes
from fusion.training.safety.checkpoints import (
    BEST,
    LAST,
    copies,
    delete_copies,
    pass_over_damaged,
    recover_last,
)

logger = logging.getLogger(__name__)

LOCK = ".lock"
LAUNCH = ".launch"  # the launcher that began the run
FILES = ("config.yaml", "metrics.jsonl", "results.json", "ranks.npz", "cost.json", "report.html")


class RunFolder:
    """The folder of a run, locked by one run at a time; ``config`` is that of the new run."""

    def __init__(self, path: str | Path, config: Mapping[str, Any]) -> None:
        self.path, self.config = Path(path), config
        self.best, self.last = self.path / BEST, self.path / LAST
        self.metrics = self.path / "metrics.jsonl"
        self._lock: IO[bytes] | None = None
        self._claimed = self._is_new = False

    def claim(self) -> bool:
        """Lock the folder for this run and change nothing else in it; call on one process only.

        Only a checkpoint that is damaged makes room for the one before. Returns whether there is a
        checkpoint to continue from.

        Raises:
            ConfigError: another run is writing here; or the folder holds a run and ``resume`` and
                ``overwrite`` are false; or that run had another config, or lost its checkpoints.
            CheckpointError: all its checkpoints are damaged.
        """
        self._is_new = not self.path.exists()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise ConfigError(
                f"output={self.path} is a file, or lies in one; name a folder by output=DIR"
            ) from None
        self._hold()
        self._claimed = True
        written = self.path / "config.yaml"
        if not written.exists() and any(self.path.glob("[!.]*")):
            raise ConfigError(
                f"{self.path} is not empty and holds no run; choose another output=DIR"
            )
        if (self.path / WEIGHTS).exists():
            raise ConfigError(f"{self.path} is a checkpoint; choose another output=DIR")
        if self.config["overwrite"] and self.config["resume"]:
            raise ConfigError("resume=true and overwrite=true contradict each other; give one")
        recover_last(self.path)
        recover_folder(self.best)
        if not self._may_go_on():
            return False
        self._check_same(written, self.config, "set them back", says=True)
        self._find_last()
        return True

    def open(self) -> bool:
        """Make the folder of a run without a config, or find the run that goes on; no lock.

        Call it on one process only. Returns and raises as :meth:`claim` does.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        recover_last(self.path)
        recover_folder(self.best)
        if goes_on := self._may_go_on():
            self._find_last()
        write_atomically(self.path / LAUNCH, launch_name())
        return goes_on

    def _may_go_on(self) -> bool:
        """Return whether a run goes on here; ConfigError: there is one, and it may not."""
        if not self._holds_a_run() or self.overwrites:
            return False
        if not self.resumes:
            raise ConfigError(
                f"{self.path} holds a run already; go on with it by resume=true, begin another"
                " by output=DIR, or delete it by overwrite=true"
            )
        return True

    @property
    def overwrites(self) -> bool:
        """Whether the run in the folder is to be deleted."""
        return bool(self.config["overwrite"]) and not self._is_restarted

    @property
    def resumes(self) -> bool:
        """Whether the run in the folder is to go on, as asked or as its launcher restarted it."""
        return bool(self.config["resume"]) or self._is_restarted

    @property
    def _is_restarted(self) -> bool:
        return is_restart_of(self.path / LAUNCH)

    def check_fitted(self, config: Mapping[str, Any]) -> None:
        """Raise ConfigError if the run to continue was fitted to the data with other values."""
        way = "give the data and the number of processes that it was begun with"
        self._check_same(self.last / CONFIG, config, way)

    def begin(self) -> None:
        """Delete the run that is overwritten, and write the config; call on one process only.

        Call it after the data were checked: a mistake must not cost the old run.
        """
        if self.overwrites or not self._holds_a_run():
            delete_copies(self.path)
            for part in [self.best, self.path / "tensorboard"]:
                remove_folder(part)
            for name in FILES:
                (self.path / name).unlink(missing_ok=True)
        write_atomically(self.path / LAUNCH, launch_name())
        write_atomically(self.path / "config.yaml", to_yaml(self.config))

    def release(self) -> None:
        """Unlock the folder. If nothing was written into it, remove the lock and a new folder."""
        if self._claimed and not any(path.name != LOCK for path in self.path.glob("*")):
            (self.path / LOCK).unlink(missing_ok=True)
            if self._is_new:
                self.path.rmdir()
        self._claimed = False
        if self._lock:
            self._lock.close()
            self._lock = None

    def _find_last(self) -> None:
        """Make ``last`` the newest checkpoint that is whole.

        CheckpointError: there is none.
        """
        if not copies(self.path):
            raise CheckpointError(
                f"{self.path} has no checkpoint to continue from, as {LAST} is gone, but"
                f" {BEST if self.best.exists() else 'results'}: use that (fusion evaluate"
                f" {self.path}, or output=DIR init={self.best} in another training), copy {LAST}"
                " from a backup, or delete the run by overwrite=true"
            )
        pass_over_damaged(self.path)

    def _check_same(
        self, written: Path, config: Mapping[str, Any], way: str, says: bool = False
    ) -> None:
        old = load_config(written, own=False)
        changes = check_changes(old, config, str(self.path), way)
        if says and (said := describe_changes(changes)):
            warn(f"{self.path}: {said}")

    def _holds_a_run(self) -> bool:
        """Return whether there is anything to lose: a checkpoint or a result."""
        parts = [*copies(self.path), self.best, self.path / "results.json"]
        return any(part.exists() for part in parts)

    def _hold(self) -> None:
        path = self.path / LOCK
        self._lock = open_lock(path)  # held until the run ends
        try:
            if not lock(self._lock.fileno()):
                logger.warning(
                    "%s is on a file system without locks: let no other run write there",
                    self.path,
                )
            path.stat()  # another run that ended may have removed it
        except OSError:
            raise ConfigError(
                f"another process is writing to {self.path}; wait for it, stop it, or choose"
                " another output=DIR"
            ) from None
