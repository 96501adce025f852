"""Unusable data is found, counted, named and limited; it is never replaced by zeros.

The same rule holds for captions, features and clips. Bad data is left out or taken as missing
(``data.bad``); a warning counts it and names some of it. If it is more than the share
``data.max_bad``, the run ends with an error that says the same.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import get_worker_info

logger = logging.getLogger(__name__)

POLICIES = ("missing", "leave_out")
MAX_BAD = 0.05  # the share that may be bad where the user sets none
NAMED = 5  # clips, videos or captions that a message names
WORKERS = 1024  # of one process; each has a counter of its own, so that no count is lost
ENOUGH = 1000  # clips; a share of fewer says little while training


def find_problem(values: Any, width: int | None, *, finite: bool = True) -> str | None:
    """Say in a few words what is wrong with features; None if nothing is.

    They must be finite numbers (rows, width) with at least one row. ``width`` None: any;
    ``finite`` False: infinity and NaN are allowed.
    """
    if isinstance(values, torch.Tensor):
        values = values.numpy()
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu":
        return f"a {type(values).__name__}, not numbers in an array"
    if values.ndim != 2:
        return f"{values.ndim} dimensions instead of rows of features"
    if not len(values):
        return "no rows"
    if width is not None and values.shape[1] != width:
        shape = f"{values.shape[0]} x {values.shape[1]}"
        turned = " (transposed)" if values.shape[0] == width else ""
        return f"{shape} instead of rows of {width}{turned}"
    bad = int((~np.isfinite(values)).sum()) if finite else 0
    return f"{bad} of {values.size} values are not finite" if bad else None


def common_width(shapes: Iterable[tuple[int, ...]]) -> int | None:
    """Return the width that most matrices have, None if there is no matrix."""
    widths = Counter(shape[1] for shape in shapes if len(shape) == 2)
    return widths.most_common(1)[0][0] if widths else None


def tolerate(
    said: str, share: float, policy: str, max_bad: float, number: int | None = None
) -> None:
    """Warn of data that cannot be used; ValueError: its ``share`` is more than ``max_bad``.

    Where ``number`` says how much it is, up to ``NAMED`` of it, which a message can name, are not
    too many, unless it is all there is or ``max_bad`` is less than the default.
    """
    few = number is not None and number <= NAMED and share < 1 and max_bad >= MAX_BAD
    if share > max_bad and not few:
        raise ValueError(
            f"{said}; that is more than data.max_bad ({max_bad:g}) allows: repair the file or raise"
            " data.max_bad"
        )
    warn(f"{said}; {'left out' if policy == 'leave_out' else 'taken as missing'}")


def warn(said: str) -> None:
    """Warn in the first of several processes only: all read the same files."""
    if int(os.environ.get("RANK") or 0) == 0:
        logger.warning("%s", said)


def name_some(names: Sequence[str], between: str = ", ") -> str:
    """Join the first few names."""
    return between.join([*names[:NAMED], *(["…"] if len(names) > NAMED else [])])


class Quarantine:
    """Counts, names and limits the clips of a set of ``size`` that turn out to be unreadable.

    All workers of a loader share the flags; other processes of a run have their own.
    """

    def __init__(self, size: int, max_bad: float) -> None:
        self._bad = torch.zeros(size, dtype=torch.bool).share_memory_()
        self.max_bad = max_bad

    def add(self, clip: int, problem: str) -> None:
        """Note a clip number; ValueError: too many had a problem so far, see :func:`tolerate`."""
        if self._bad[clip]:
            return
        self._bad[clip] = True
        count = int(self._bad.sum())
        said = f"{problem}: {count} of {len(self._bad)} clips have features that cannot be used"
        tolerate(said, count / len(self._bad), "missing", self.max_bad, count)


class Unreadable:
    """Counts, names and limits features that turn out to be unreadable while training.

    All workers of a loader share the counters; other processes of a run have their own.
    """

    def __init__(self, videos: Sequence[str], fields: Sequence[str], max_bad: float) -> None:
        self.fields, self.max_bad = list(fields), max_bad
        self._clips = torch.zeros(WORKERS, 2, dtype=torch.int64).share_memory_()  # all, bad
        self._files = torch.zeros(len(videos), len(self.fields), dtype=torch.bool).share_memory_()

    @property
    def totals(self) -> tuple[int, int, int]:
        """Number of clips read, of clips with a problem, and of unreadable files."""
        clips, bad = self._clips.sum(0).tolist()
        return clips, bad, int(self._files.sum())

    def name(self, video: int, field: str, problem: str) -> None:
        """Warn of a file of video number ``video``, the first time that it has a problem."""
        place = self.fields.index(field)
        if not self._files[video, place]:
            self._files[video, place] = True
            logger.warning("%s; taken as missing", problem)

    def count(self, problems: Sequence[str]) -> None:
        """Count a clip and its problems; ValueError: over ``max_bad`` of many clips had one."""
        worker = get_worker_info()
        mine = self._clips[(worker.id + 1 if worker else 0) % WORKERS]
        mine[0] += 1
        mine[1] += bool(problems)
        clips, bad, files = self.totals if problems else (0, 0, 0)
        if clips >= ENOUGH and bad / clips > self.max_bad:
            said = f"{self._said(clips, bad, files)}, the last time {problems[-1]}"
            tolerate(said, bad / clips, "missing", self.max_bad)

    def report(self) -> None:
        """Warn of how many there have been so far, if any."""
        clips, bad, files = self.totals
        if bad:
            logger.warning("%s", self._said(clips, bad, files))

    def _said(self, clips: int, bad: int, files: int) -> str:
        return (
            f"so far {bad} of {clips} clips ({100 * bad / clips:.2g} %) had features that could not"
            f" be read, in {files} files, each named above"
        )
