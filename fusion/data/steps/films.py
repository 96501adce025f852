"""Films with steps: their features, and when each step occurs."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path

from fusion.data.captions.match import Ways, full_names
from fusion.data.captions.table import Caption
from fusion.data.datasets.captioned import CaptionedVideos
from fusion.data.datasets.clips import Clips, unreadable_in
from fusion.data.features.problems import MAX_BAD, name_some, tolerate
from fusion.data.features.readers import Reader, seconds_of
from fusion.data.steps.annotation import (
    BEYOND,
    MISSING,
    Notes,
    StepCaption,
    StepError,
    StepFilm,
    group_films,
)
from fusion.data.steps.crosstask import read_crosstask, read_tasks
from fusion.data.steps.mining_youtube import read_mining_youtube
from fusion.data.steps.table import read_steps
from fusion.data.steps.windows import FilmWindows, Windows
from fusion.interfaces import TextEncoder

TABLE, CROSSTASK, MINING = FORMATS = ("table", "crosstask", "mining_youtube")
OVER = 1.0  # seconds that an interval may last beyond its film without a word


class StepClips(Clips):
    """The times at which steps occur, as clips with the steps as their texts; and their films.

    Attributes:
        films: those that have features, see :class:`.StepFilm`.
        notes: what is wrong with the annotations.
        windows: how films are cut, see :meth:`windows_of`.
    """

    films: Sequence[StepFilm] = ()
    notes: Notes
    windows: Windows

    def windows_of(self, film: StepFilm) -> FilmWindows:
        """Cut a film into a window for each second."""
        most = self.max_video_tokens, self.max_audio_frames
        further = {name: self.max_tokens.get(name) for name in self.further}
        return FilmWindows(self.reader, film.video, self.windows, most, further)


@dataclasses.dataclass(eq=False)
class StepVideos(CaptionedVideos):
    """Films with steps, in an annotation file or folder for each split.

    Other arguments are those of :class:`.captioned.CaptionedVideos`: films have features in a store
    or computed on the way; an interval takes the place of a caption.

    Args:
        form: how annotations are written: ``table`` (:func:`.table.read_steps`), ``crosstask``
            (:func:`.crosstask.read_crosstask`) or ``mining_youtube``
            (:func:`.mining_youtube.read_mining_youtube`).
        tasks: a file such as ``tasks_primary.txt`` with the steps of each task, in order.
        videos: of CrossTask, the list of films to take.
        rate: of MiningYouTube, labels per second.
        background: of MiningYouTube, the class that is no step.
        before: this, ``after``, ``step`` and ``pictures`` are those of :class:`.Windows`.

    Raises:
        ValueError: a setting has no possible value.
    """

    form: str = TABLE
    tasks: str | None = None
    videos: str | None = None
    rate: float = 1.0
    background: str = "background"
    before: float = 4.0
    after: float = 4.0
    step: float = 1.0
    pictures: str = "window"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form not in FORMATS:
            raise StepError(f"data.form: unknown {self.form!r}; choose from {', '.join(FORMATS)}")
        self.windows = Windows(self.before, self.after, self.step, self.pictures)
        self._notes: dict[Path, Notes] = {}

    def clips(self, split: str, text_encoder: TextEncoder | None = None) -> StepClips:
        """Read a split; films without features are left out, named and counted.

        Raises:
            ValueError: a file cannot be read, too many films are missing, or no step is left.
        """
        self.fit()
        captions, reader = self._captions(split), self._reader(split)
        place, notes = self._place(split), Notes()
        captions = self._with_features(captions, reader, notes, place)
        kept = _within_films(captions, reader, notes)
        notes = self._notes[place].joined(notes)
        if split not in self._said:
            self._said.add(split)
            notes.say(str(place))
        tokens, frames = self.max_video_tokens, self.max_audio_frames
        assert tokens is not None and frames is not None
        if not kept:
            said = "; ".join(notes.lines()) or "there is none"
            raise StepError(f"no step of {place} can be used: {said}; correct the annotations")
        films = group_films(kept)
        if prepare := getattr(text_encoder, "prepare", None):
            prepare(step for film in films for step in film.steps)
        made = StepClips(self._folder(split), kept, reader, text_encoder, tokens, frames)
        made.max_tokens = self.max_tokens or {}
        made.tolerate_unreadable(self.max_bad)
        made.films, made.notes, made.windows = films, notes, self.windows
        return made

    def describe(self, split: str) -> str:
        """Say what the films of a split are."""
        return f"{super().describe(split)}, {self.windows.describe()}"

    def texts(self, split: str) -> list[str]:
        """The steps' texts."""
        return [step for film in group_films(self._captions(split)) for step in film.steps]

    def _with_features(
        self, captions: Sequence[Caption], reader: Reader, notes: Notes, place: Path
    ) -> list[Caption]:
        known: Collection[str] = set(reader.videos)
        films = dict.fromkeys(caption.video for caption in captions)
        why = unreadable_in(reader)
        lost = [film for film in films if film not in known]
        for film in lost:
            notes.add(MISSING, f"{film}: {why[film]}" if film in why else film)
        if lost:
            said = f"{place}: {len(lost)} of {len(films)} films are missing ({name_some(lost)})"
            if len(lost) == len(films):
                raise StepError(f"{said}; name the store or the folder of these films")
            if len(lost) > self.max_bad * len(films):  # those below are counted in the report
                tolerate(said, len(lost) / len(films), "leave_out", self.max_bad)
        return [caption for caption in captions if caption.video in known]

    def _reader(self, split: str) -> Reader:
        if self.store is not None:
            return super()._reader(split)
        folder = self._folder(split)
        there = [c.video for c in self._captions(split) if (folder / c.video).is_file()]
        return self._compute(folder, there)

    def extract(self) -> None:
        """Compute the features of all splits; with a store, only check the annotations."""
        for split in self.files:
            self._captions(split)
            if self.store is None:
                self._reader(split)

    def _captions(self, split: str) -> list[Caption]:
        """Read the intervals of a split once; ``max_clips`` counts films."""
        if split not in self._read:
            captions = self._listed(split)
            films = [*dict.fromkeys(caption.video for caption in captions)][: self.max_clips]
            self._read[split] = [caption for caption in captions if caption.video in {*films}]
        return self._read[split]

    def _read_all(
        self,
        place: Path,
        videos: Collection[str],
        max_bad: float = MAX_BAD,
        ways: Ways = lambda name: (),
    ) -> list[Caption]:
        """Read the annotations of a file or folder, each under the full name of its film."""
        notes = self._notes[place] = Notes()
        captions = self._read_steps(place, max_bad, notes)
        full = full_names({caption.video: None for caption in captions}, videos, place, ways)
        return [dataclasses.replace(c, video=full[c.video]) for c in captions]

    def _read_steps(self, place: Path, max_bad: float, notes: Notes) -> list[StepCaption]:
        tasks = Path(self.tasks).expanduser() if self.tasks else None
        if not place.exists():
            raise StepError(f"{place}: no such file or folder; name the annotations of the films")
        if self.form == CROSSTASK:
            videos = Path(self.videos).expanduser() if self.videos else None
            return read_crosstask(place, max_bad, notes, videos, tasks)
        if self.form == MINING:
            return read_mining_youtube(place, max_bad, notes, self.rate, self.background)
        return read_steps(place, max_bad, notes, read_tasks(tasks, notes) if tasks else None)


@dataclasses.dataclass(eq=False)
class CrossTask(StepVideos):
    """CrossTask as released, see :func:`.crosstask.read_crosstask`."""

    form: str = CROSSTASK


@dataclasses.dataclass(eq=False)
class MiningYouTube(StepVideos):
    """MiningYouTube, see :func:`.mining_youtube.read_mining_youtube`."""

    form: str = MINING


def _within_films(captions: Sequence[Caption], reader: Reader, notes: Notes) -> list[Caption]:
    """Leave out intervals that begin beyond the end of their film; note those that end there."""
    ends = {video: seconds_of(reader, video) for video in {c.video for c in captions}}
    for c in captions:
        if c.end > ends[c.video] + OVER or c.start >= ends[c.video]:
            notes.add(BEYOND, f"{c.name}, its film at {ends[c.video]:.1f} s")
    return [caption for caption in captions if caption.start < ends[caption.video]]
