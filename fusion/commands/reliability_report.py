"""Make the page of what faults did to runs; inject them first where there are no results."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import fusion
from fusion.config import ConfigError
from fusion.files import write_atomically
from fusion.report.reliability.page import reliability_page
from fusion.report.reliability.results import read_trials

PAGE = "reliability.html"
TOOL = Path(fusion.__file__).parents[1] / "tools" / "reliability.py"


def reliability_report(folder: str | Path, long: bool = False) -> None:
    """Write ``reliability.html`` into a folder of results of ``tools/reliability.py``.

    Args:
        folder: of the results; if it has none, the trials run first.
        long: whether these are the long ones.

    Raises:
        ConfigError: there are no results and no trials, or a trial failed.
    """
    place = Path(folder)
    if place.exists() and not place.is_dir():
        raise ConfigError(f"{place} is a file; name a folder")
    trials = read_trials(place)
    if trials and long:
        raise ConfigError(f"{place} has results already; leave out --long, or name a new folder")
    if not trials:
        _inject(place, long)
        trials = read_trials(place)
    try:
        text = reliability_page(trials)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ConfigError(
            f"{place} has a result of another version ({type(error).__name__}: {error}); run the"
            " trials again into a new folder"
        ) from None
    write_atomically(place / PAGE, text)
    print(f"page      {place / PAGE}")


def _inject(folder: Path, long: bool) -> None:
    if not TOOL.exists():
        raise ConfigError(
            f"{folder} has no results, and the trials are no part of the package: clone the"
            " repository and run: python tools/reliability.py all --out FOLDER"
        )
    words = [sys.executable, str(TOOL), "all", "--out", str(folder.absolute())]
    code = subprocess.run([*words, *(["--long"] if long else [])], cwd=TOOL.parents[1]).returncode
    if code:
        raise ConfigError(f"a trial ended with {code}; its message is above")
