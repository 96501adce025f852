"""What the ranks of a run want after the current step: to stop, or to save.

Each rank's wish goes with the votes of a step (:class:`fusion.distributed.Agreement`), so that all
do the same, in the same step, and no further message is needed.
"""

from __future__ import annotations

import time

from fusion.distributed import Agreement
from fusion.training.launch import StopRequest

AT_END = 60.0  # seconds; an evaluation follows, which may take long, and may be killed


class Wishes:
    """Signals that this rank got, and the time since the last checkpoint.

    A checkpoint is due after so many ``minutes`` (None: never), and before an evaluation if the
    last one is older than a minute. After each step ``received`` is a signal that some rank got,
    or 0, and ``save`` says whether a checkpoint is due.
    """

    def __init__(self, agreement: Agreement, minutes: float | None) -> None:
        self.stop, self.agreement = StopRequest(), agreement
        self.seconds = None if minutes is None else 60 * minutes
        self.is_last = False  # the next step is the last of its epoch
        agreement.ask = self._wish
        self.begin()

    def begin(self) -> None:
        """Begin to count the time: a checkpoint was written."""
        self._begun = time.monotonic()  # no clock that someone may set

    @property
    def received(self) -> int:
        """A signal that some rank had got when the last step was voted on, or 0."""
        return self.agreement.asked >> 1

    @property
    def save(self) -> bool:
        """Whether some rank had found a checkpoint due when the last step was voted on."""
        return self.agreement.asked > 0

    def ask_all(self) -> int:
        """Return a signal that some rank has got by now, or 0; every rank calls this."""
        return max(self.agreement.gather(self.stop.signal))

    def _wish(self) -> int:
        past = time.monotonic() - self._begun
        is_due = self.seconds is not None and past >= self.seconds
        return 2 * self.stop.signal + (is_due or (self.is_last and past >= AT_END))
