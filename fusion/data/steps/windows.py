"""A film in windows around each second.

Shapes: T seconds, L tokens of a window, D width.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fusion.data.captions.table import Caption
from fusion.data.datasets.clips import Clips
from fusion.data.datasets.dataset import ClipSet
from fusion.data.datasets.sampling import fit_video_tokens
from fusion.data.features.readers import VIDEO, Reader, seconds_of
from fusion.data.steps.annotation import StepError

WINDOW, SECOND = PICTURES = ("window", "second")
PART = 0.1  # of a second; a film that ends so soon after a second has no further one


@dataclasses.dataclass(frozen=True)
class Windows:
    """Which windows stand for the seconds of a film.

    Second t stands for the film from t to t + 1; its window begins ``before`` seconds before t and
    ends ``after`` seconds after it. At both ends of a film windows are shifted inwards, so that all
    have one length, unless the film is shorter. With a ``step`` that is not 1, "second" t is the
    film from t * step to (t + 1) * step.

    Attributes:
        before: seconds; 4 for MCN (arXiv:2104.12671).
        after: seconds; 4 for MCN.
        step: seconds from one window to the next.
        pictures: of the ``window``, or of the ``second`` alone: one token, the maximum over the
            rows of features that the second has a part of, as MCN has it.

    Raises:
        StepError: a number or a name is not possible.
    """

    before: float = 4.0
    after: float = 4.0
    step: float = 1.0
    pictures: str = WINDOW

    def __post_init__(self) -> None:
        """Check the values."""
        if not (self.before >= 0 and self.after > 0 and math.isfinite(self.before + self.after)):
            raise StepError(
                f"windows begin {self.before:g} s before a second and end {self.after:g} s after"
                " its beginning; before must be at least 0 and after above 0"
            )
        if not 0 < self.step < math.inf:
            raise StepError(f"step must be above 0 seconds; got {self.step:g}")
        if self.pictures not in PICTURES:
            raise StepError(
                f"pictures: unknown {self.pictures!r}; choose from {', '.join(PICTURES)}"
            )

    def count(self, seconds: float) -> int:
        """Return T for a film of so many seconds."""
        return max(1, math.ceil((seconds - PART) / self.step)) if seconds > 0 else 0

    def times(self, number: int, seconds: float) -> tuple[float, float]:
        """Return from when to when window ``number`` of a film lasts."""
        length = self.before + self.after
        start = min(number * self.step - self.before, seconds - length)
        start = max(start, 0.0)
        return start, min(start + length, seconds)

    def describe(self) -> str:
        """Say it in a few words."""
        alone = ", pictures of the second alone" if self.pictures == SECOND else ""
        return (
            f"windows from {self.before:g} s before to {self.after:g} s after each"
            f" {'second' if self.step == 1 else f'step of {self.step:g} s'}{alone}"
        )


class FilmWindows(ClipSet):
    """The windows of a film, one for each second; items are those of :class:`.clips.Clips`.

    Args:
        reader: has the features of the film.
        video: its name there.
        windows: which windows.
        most: ``max_video_tokens`` and ``max_audio_frames``.
        further: other fields that are modalities, with their most tokens, None for any number.
    """

    def __init__(
        self,
        reader: Reader,
        video: str,
        windows: Windows,
        most: tuple[int, int],
        further: Mapping[str, int | None] | None = None,
    ) -> None:
        self.reader, self.video, self.windows = reader, video, windows
        self.seconds = seconds_of(reader, video)
        times = [windows.times(t, self.seconds) for t in range(windows.count(self.seconds))]
        self.captions = [Caption(video, *window, "") for window in times]
        self._clips = Clips(None, self.captions, reader, None, *most)
        self._clips.further = list(further or {})
        limits = {name: number for name, number in (further or {}).items() if number is not None}
        self._clips.max_tokens = limits

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read a window."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        item = self._clips[index]
        if self.windows.pictures == SECOND and "video" in item:
            item["video"] = self._of_second(index)
        return item

    def _of_second(self, index: int) -> Tensor:
        """Return one token (1, D) of the second, (0, D) if the film has no picture there."""
        start, end = (place * self.windows.step for place in (index, index + 1))
        kinds: list[Tensor | None] = []
        for name in VIDEO:
            rate = field.per_second if (field := self.reader.fields.get(name)) else 0.0
            first, last = math.floor(start * rate + 1e-9), math.ceil(end * rate - 1e-9)
            rows = None
            if field is not None:
                rows = self.reader.read(self.video, name, first, last)
            kinds.append(rows)
        return fit_video_tokens(kinds[0], kinds[1], 0)
