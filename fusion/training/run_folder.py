"""The folder of a run: its lock and its files.

config.yaml    the resolved config           metrics.jsonl  one line per logged step
best/          checkpoint of the best epoch  tensorboard/   the same as curves
last/          newest checkpoint, with all that is needed to continue
results.json   table of the test             ranks.npz      place of every query's target
cost.json      time, memory, arithmetic      report.html    all of it as a page
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import yaml

from fusion.checkpoint import CONFIG, WEIGHTS
from fusion.config import ConfigError, flatten, load_config, to_yaml
from fusion.files import lock, open_lock, recover_folder, remove_folder, write_atomically

logger = logging.getLogger(__name__)

LOCK = ".lock"
FILES = ("config.yaml", "metrics.jsonl", "results.json", "ranks.npz", "cost.json", "report.html")
# These keys may change when a run is resumed: they do not change the result, or only add to it.
FREE_TO_CHANGE = (
    *("output", "resume", "overwrite", "trust", "max_unknown"),
    *("trainer.chunk_size", "trainer.num_workers", "trainer.num_processes"),
    *("evaluation.batch_size", "evaluation.missing", "evaluation.missing_direction"),
)


class RunFolder:
    """The folder of a run, locked by one run at a time; ``config`` is that of the new run."""

    def __init__(self, path: str | Path, config: Mapping[str, Any]) -> None:
        self.path, self.config = Path(path), config
        self.best, self.last = self.path / "best", self.path / "last"
        self.metrics = self.path / "metrics.jsonl"
        self._lock: IO[bytes] | None = None
        self._claimed = self._is_new = False

    def claim(self) -> bool:
        """Lock the folder for this run and change nothing else in it; call on one process only.

        Returns whether there is a checkpoint to continue from.

        Raises:
            ConfigError: another run is writing here; or the folder holds a run and ``resume`` and
                ``overwrite`` are false; or that run had another config.
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
        recover_folder(self.last)
        recover_folder(self.best)
        if self._holds_a_run() and not self.config["overwrite"]:
            if not self.config["resume"]:
                raise ConfigError(
                    f"{self.path} holds a run already; go on with it by resume=true, begin another"
                    " by output=DIR, or delete it by overwrite=true"
                )
            self._check_same(written, self.config, "set it back")
        return self.last.exists() and not self.config["overwrite"]

    def check_fitted(self, config: Mapping[str, Any]) -> None:
        """Raise ConfigError if the run to continue was fitted to the data with other values."""
        way = "give the data and the number of processes that it was begun with"
        self._check_same(self.last / CONFIG, config, way)

    def begin(self) -> None:
        """Delete the run that is overwritten, and write the config; call on one process only.

        Call it after the data were checked: a mistake must not cost the old run.
        """
        if self.config["overwrite"] or not self._holds_a_run():
            for part in [self.best, self.last, self.path / "tensorboard"]:
                remove_folder(part)
            for name in FILES:
                (self.path / name).unlink(missing_ok=True)
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

    def _check_same(self, written: Path, config: Mapping[str, Any], way: str) -> None:
        old = flatten(load_config(written, own=False))
        new = flatten(yaml.safe_load(to_yaml(config)))
        for key in sorted(old.keys() | new.keys()):
            if key not in FREE_TO_CHANGE and old.get(key) != new.get(key):
                raise ConfigError(
                    f"{self.path} was begun with {key}={old.get(key)} and cannot go on with"
                    f" {new.get(key)}; {way}, or begin another run by output=DIR"
                )

    def _holds_a_run(self) -> bool:
        """Return whether there is anything to lose: a checkpoint or a result."""
        return any(part.exists() for part in (self.last, self.best, self.path / "results.json"))

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
