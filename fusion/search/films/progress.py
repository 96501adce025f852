"""How far the indexing of films is: films per minute, and the time that is left."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

EVERY = 30.0  # seconds between lines, where the output is no screen


class Progress:
    """Shows a bar on a screen, and a line from time to time elsewhere, on standard error.

    The time that is left follows from the sizes of the files: large ones take longer.

    Args:
        count: of films.
        size: bytes of all films.
        quiet: show nothing but what :meth:`say` gets.
    """

    def __init__(self, count: int, size: int, quiet: bool = False) -> None:
        self.count, self.size = count, max(1, size)
        self.done = self.bytes = 0
        self._began = self._said = time.monotonic()
        screen = sys.stderr.isatty()
        self._lines = not quiet and not screen
        self._bar = tqdm(
            total=self.size,
            disable=quiet or not screen or not count,
            bar_format="indexing {percentage:3.0f}%|{bar}| {postfix}",
        )

    def film(self, size: int) -> None:
        """Count a film that is done."""
        self.done += 1
        self.bytes += size
        self._bar.set_postfix_str(str(self), refresh=False)
        self._bar.update(size)
        now = time.monotonic()
        if self._lines and now - self._said >= EVERY:
            self._said = now
            print(f"indexing: {self}", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """Write a line on standard error, whatever the encoding there."""
        encoding = sys.stderr.encoding or "utf-8"
        tqdm.write(text.encode(encoding, "backslashreplace").decode(encoding), file=sys.stderr)

    def close(self) -> None:
        """Remove the bar."""
        self._bar.leave = False
        self._bar.close()

    def __str__(self) -> str:
        passed = max(1e-3, time.monotonic() - self._began)
        text = f"{self.done} of {self.count} films, {60 * self.done / passed:.0f} films/min"
        if not self.bytes:
            return text
        left = round(passed * (self.size - self.bytes) / self.bytes)
        hours, minutes = divmod(left // 60, 60)
        clock = f"{hours}:{minutes:02}:{left % 60:02}" if hours else f"{minutes}:{left % 60:02}"
        return f"{text}, {clock} left"
