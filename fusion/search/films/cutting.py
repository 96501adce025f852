"""Where films are cut into clips: at captions, at scene changes, or into windows that overlap."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fusion.data.captions.table import Caption
from fusion.inference.embedder import Embedder
from fusion.inference.rows import windows_of
from fusion.search.database import SearchError
from fusion.search.films.scenes import find_scenes

CAPTIONS, SCENES, WINDOWS = CUTS = ("captions", "scenes", "windows")
SHORTEST = 1.0  # seconds; a shorter scene becomes part of the next one

Times = list[tuple[float, float, str]]  # start, end and text of each clip


class Cut(NamedTuple):
    """How films are cut."""

    at: str  # captions where there are any, else windows; or scenes, or windows
    seconds: float  # of a window
    step: float  # seconds from the start of a window to that of the next

    @classmethod
    def of(
        cls,
        model: Embedder,
        at: str | None,
        seconds: float | None,
        step: float | None,
        last: Sequence[Any] | None = None,
    ) -> Cut:
        """Complete what a user wishes: by ``last``, the one before, or by what the model takes.

        Raises:
            ValueError: a wish cannot be met; one line.
        """
        longest = model.longest
        if last is not None:
            at = last[0] if at is None else at
            if seconds is None and step is None:
                seconds, step = last[1:]
        at = CAPTIONS if at is None else at
        if at not in CUTS:
            raise ValueError(f"films are cut at {', '.join(CUTS)}; got {at!r}")
        if at == SCENES and importlib.util.find_spec("scenedetect") is None:
            raise SearchError(
                "cutting at scenes needs PySceneDetect; install it by: pip install 'fusion[scenes]'"
            )
        seconds = min(10.0, longest) if seconds is None else seconds
        if not 0 < seconds <= longest:
            raise ValueError(
                f"windows must be above 0 and at most {longest:.1f} s, which is the longest"
                f" clip that the model takes; got {seconds:g}"
            )
        step = seconds / 2 if step is None else step
        if not 0 < step <= seconds:
            raise ValueError(f"step must be above 0 and at most {seconds:g} s; got {step:g}")
        return cls(at, seconds, step)

    def describe(self, captions: Sequence[Caption]) -> list[Any]:
        """Return all but the film that its clips follow from, ready for JSON."""
        times = [(c.start, c.end, c.text) for c in captions]
        if times and self.at == CAPTIONS:
            return [times]
        return [times, self.seconds, self.step, *([SCENES] if self.at == SCENES else [])]


def cut_film(path: Path, captions: Sequence[Caption], seconds: float, cut: Cut) -> Times:
    """Cut a film that has picture or sound for some seconds; no clips if it has none.

    Raises:
        MediaError: the film cannot be read.
    """
    if seconds <= 0:
        return []
    spoken = [(c.start, min(c.end, seconds), c.text) for c in captions if c.start < seconds]
    if spoken and cut.at == CAPTIONS:
        return spoken
    scenes = [(0.0, seconds)]
    if cut.at == SCENES:
        scenes = join_short(find_scenes(path), seconds, min(SHORTEST, cut.seconds / 2))
    windows = [w for scene in scenes for w in windows_of(*scene, cut.seconds, cut.step)]
    return [(start, end, _said(spoken, start, end)) for start, end in windows]


def join_short(cuts: Sequence[float], seconds: float, shortest: float) -> list[tuple[float, float]]:
    """Make scenes from the seconds at which a film is cut, ascending.

    A scene that is shorter than ``shortest`` becomes part of the next one, the last one part of the
    one before.
    """
    starts = [0.0]
    for second in cuts:
        if second - starts[-1] >= shortest and second < seconds:
            starts.append(second)
    if len(starts) > 1 and seconds - starts[-1] < shortest:
        starts.pop()
    return list(zip(starts, [*starts[1:], seconds], strict=True))


def _said(spoken: Times, start: float, end: float) -> str:
    """Join the captions that share with a clip at least half of its time, or of their own."""
    texts = []
    for first, last, text in spoken:
        shared = min(last, end) - max(first, start)
        if shared > 0 and shared >= 0.5 * min(last - first, end - start):
            texts.append(text)
    return " ".join(dict.fromkeys(filter(None, texts)))
