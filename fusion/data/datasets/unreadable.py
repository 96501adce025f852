"""Clips drawn from files that cannot be read: each clip counted once, each file named once."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch.utils.data import get_worker_info

logger = logging.getLogger(__name__)

WORKERS = 1024  # that one process may have; each counts for itself, so that no number gets lost
ENOUGH = 1000  # clips before a share says anything


class Unreadable:
    """What could not be read, over all workers of a loader; other ranks have their own.

    Args:
        videos: their names.
        fields: what each has a file of.
        max_bad: the share of clips that may have features that cannot be read.
    """

    def __init__(self, videos: Sequence[str], fields: Sequence[str], max_bad: float) -> None:
        self.fields, self.max_bad = list(fields), max_bad
        self._clips = torch.zeros(WORKERS, 2, dtype=torch.int64).share_memory_()  # asked, bad
        self._files = torch.zeros(len(videos), len(self.fields), dtype=torch.bool).share_memory_()

    @property
    def totals(self) -> tuple[int, int, int]:
        """Clips that were asked for, those of them with a problem, and files with one."""
        asked, bad = self._clips.sum(0).tolist()
        return asked, bad, int(self._files.sum())

    def name(self, video: int, field: str, problem: str) -> None:
        """Warn of a file, unless that has been done.

        Args:
            video: its number.
            field: of it.
            problem: what to say, with the name of the file or of the video.
        """
        place = self.fields.index(field)
        if not self._files[video, place]:
            self._files[video, place] = True
            logger.warning("%s; taken as missing", problem)

    def count(self, problems: Sequence[str]) -> None:
        """Count a clip.

        Args:
            problems: that were met on the way to it.

        Raises:
            ValueError: too many clips had one.
        """
        worker = get_worker_info()
        mine = self._clips[(worker.id + 1 if worker else 0) % WORKERS]
        mine[0] += 1
        if not problems:
            return
        mine[1] += 1
        asked, bad, files = self.totals
        if asked >= ENOUGH and bad > self.max_bad * asked:
            raise ValueError(
                f"{bad} of {asked} clips have features that cannot be read, in {files} files, the"
                f" last time {problems[-1]}; that is more than data.max_bad ({self.max_bad:g})"
                " allows: mend the files or raise it"
            )

    def report(self) -> None:
        """Say how many there have been, if any."""
        asked, bad, files = self.totals
        if bad:
            logger.warning(
                "so far %d of %d clips (%.2g %%) had features that could not be read, in %d files,"
                " each named above",
                *(bad, asked, 100 * bad / asked, files),
            )
