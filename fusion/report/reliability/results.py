"""The results of ``tools/reliability.py``, as it wrote them: a JSON file for each trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fusion.config import ConfigError
from fusion.data.untrusted.reading import read_json

COMMANDS = ("kills", "launches", "signals", "restart", "damage", "corrupt", "hostile")
Trial = Mapping[str, Any]


def read_trials(folder: str | Path) -> dict[str, list[Trial]]:
    """Read all results below a folder, by what was tried; empty if there are none.

    Raises:
        ConfigError: a file cannot be read, or is no such result.
    """
    found: dict[str, list[Trial]] = {}
    for path in sorted(Path(folder).rglob("*.json")):
        try:
            trial = read_json(path)
        except (ValueError, OSError) as error:
            raise ConfigError(f"{path}: {error}; remove it") from None
        if not isinstance(trial, Mapping) or trial.get("command") not in COMMANDS:
            raise ConfigError(
                f"{path} is no result of tools/reliability.py; name a folder of such results alone"
            )
        found.setdefault(trial["command"], []).append(trial)
    return found


def kills_of(variant: Trial) -> list[Trial]:
    """List the kills of all runs of a variant."""
    return [kill for run in variant["runs"] for kill in run["kills"]]


def recoveries(trials: Sequence[Trial]) -> list[float]:
    """List the seconds from a start after a kill to the first new step."""
    kills = [k for trial in trials for v in trial["variants"].values() for k in kills_of(v)]
    return [kill["recovery"] for kill in kills if kill["recovery"] is not None]


def is_as_expected(command: str, trial: Trial) -> bool:
    """Return whether nothing was lost, begun anew, left running or run."""
    if command == "kills":
        is_well = trial["equal"] == trial["runs"] and not trial["processes left"]
        saves = trial.get("signal", "SIGKILL") != "SIGKILL"  # such a run saves first
        loses = saves and trial["most steps redone"]
        return is_well and not loses and not trial.get("badly ended")
    if command == "launches":
        return all(set(one["codes"]) == {"0"} for one in trial["seen"].values())
    if command == "signals":
        ends = [one for one in trial.values() if isinstance(one, Mapping) and "saved" in one]
        return all(one["saved"] and not one["processes left"] for one in ends)
    if command == "restart":
        return trial["exit code"] == 0 and bool(trial["every step once"])
    if command == "damage":
        return not any("DIFFERENT" in outcome for outcome in trial["seen"])
    if command == "hostile":
        return all(one["outcome"] == "refused in one line" for one in trial["seen"].values())
    return all(one["named"] == one["corrupt"] for one in trial["seen"])  # clips left out
