"""A request that is not answered: the status and the line that the client gets."""

from __future__ import annotations

from collections.abc import Sequence


class Refused(Exception):
    """A request cannot be answered.

    Args:
        status: of HTTP.
        error: one line.
        unknown: words of the question that the model does not know.
        retry_after: seconds after which it is worth to ask again.
    """

    def __init__(
        self,
        status: int,
        error: str,
        unknown: Sequence[str] | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(error)
        self.status, self.error = status, " ".join(error.split())
        self.unknown, self.retry_after = unknown, retry_after
