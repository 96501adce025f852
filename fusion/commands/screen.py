"""What a screen can show: times, and names in any letters."""

from __future__ import annotations

import sys


def printed(text: str) -> str:
    """Replace the letters that standard output cannot write, as of names that are not UTF-8."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def clock(second: float) -> str:
    """Write a time: ``1:02``, ``1:00:02``."""
    minutes, seconds = divmod(round(second), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
