"""Films with a class each, in folders or tables, as a data set."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fusion.data.datasets.dataset import SPLITS, Source
from fusion.data.features.problems import name_some, tolerate, warn
from fusion.data.labelled.cache import FrameCache, free_bytes, list_problems, part_of
from fusion.data.labelled.clips import FilmClips
from fusion.data.labelled.film import (
    Found,
    LabelError,
    LabelledFilm,
    check_frames,
    frame_size,
    is_number,
)
from fusion.data.labelled.readers import find_splits, read_films
from fusion.data.labelled.sampling import SAMPLINGS
from fusion.data.media.shown import VERSION, Size
from fusion.interfaces import TextEncoder
from fusion.parts import nearest
from fusion.words import number_of

WAY_OUT = "decode films in training by data.cache=false"
CACHE_BYTES = 4e9  # of films that are kept in the cache unless the config says so


@dataclasses.dataclass(eq=False)
class LabelledFilms(Source):
    """Films of some classes: folders as of Kinetics, tables of own films, TSM's lists.

    Args:
        folder: has ``train``, ``val`` and perhaps ``test``: each a folder with a folder of films
            for each class, or a csv file.
        train, validation, test: a folder or file each instead, see :func:`.readers.read_films`.
        table: one csv file for all of them, with a column ``split``.
        root: folder of the films that tables and lists name; None: that of the file.
        classes: file with the name of a class in each line, in the order of a list's numbers.
        frames: of a clip.
        sampling: ``segments`` of the whole film, or ``dense``.
        frame_size: pixels; the shorter side is scaled to it and the middle square cut out. Or
            ``[height, width]``: frames are stretched to it.
        cache: keep all decoded frames in the cache. None: if they take at most 4 GB.
        max_bad: the share of films that may be unreadable.

    Raises:
        ValueError: a setting has no possible value.
    """

    folder: str | None = None
    train: str | None = None
    validation: str | None = None
    test: str | None = None
    table: str | None = None
    root: str | None = None
    classes: str | None = None
    frames: int = 8
    sampling: str = "segments"
    frame_size: int | list[int] = 256
    cache: bool | None = None
    max_bad: float = 0.05

    about = "films of one class each"
    pairs: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check()
        given = {s: Path(p).expanduser() for s in SPLITS if (p := getattr(self, s))}
        if self.folder:
            given = find_splits(Path(self.folder).expanduser()) | given
        self._found: dict[Path, Found] = {}
        if self.table:
            table = Path(self.table).expanduser()
            named = set(self._read(table).splits)
            if not named - {""}:
                raise LabelError(
                    f"data.table: {table} has no column split; add it, or name a file for each"
                    " split as data.train, data.validation and data.test"
                )
            given = {split: table for split in SPLITS if split in named} | given
        if not given:
            raise LabelError("data names no films; set data.folder, data.table or data.train")
        super().__init__({split: str(given[split]) for split in SPLITS if split in given})
        self.class_names: list[str] = self._list_classes()
        self._caches: dict[tuple[Path, tuple[LabelledFilm, ...]], FrameCache | None] = {}

    @property
    def size(self) -> Size:
        """The size of the frames."""
        return frame_size("data.frame_size", self.frame_size)

    def films(self, split: str) -> list[LabelledFilm]:
        """The films of a split, with classes that training has.

        ValueError: there is no such split, it has no film, or a class that is unknown.
        """
        path = self._file(split, "folder or file")
        found = self._read(path)
        films = [f for f, own in zip(found.films, found.splits, strict=True) if own in ("", split)]
        known = set(self.class_names)
        for film in films:
            if film.label not in known:
                hint = nearest(film.label, self.class_names, "classes are")
                raise LabelError(f"{path}: {film.id} is of the unknown class {film.label!r}{hint}")
        if self.max_clips is not None and self.max_clips < len(films):
            # evenly spaced, as films of a class often lie together
            places = np.linspace(0, len(films) - 1, self.max_clips).round().astype(int)
            films = [films[place] for place in places]
        return films

    def clips(self, split: str, text_encoder: TextEncoder | None = None) -> FilmClips:
        """Read a split; its films are decoded first where they are kept in the cache."""
        films, folder = self.films(split), self._read(self.files[split]).folder
        cache = self._open_cache(split)
        if cache is not None and cache.problems:
            number = sum(part_of(film) in cache.problems for film in films)
            named = name_some(list_problems(cache.problems), "; ")
            said = f"{self.files[split]}: {number} of {len(films)} films cannot be read ({named})"
            tolerate(said, number / len(films), "missing", self.max_bad, number)
        return FilmClips(
            films,
            folder,
            self.class_names,
            self.size,
            self.frames,
            self.sampling,
            split == "train",
            cache,
            self.max_bad,
        )

    def extract(self) -> None:
        """Decode the films that are kept in the cache."""
        for split in self.files:
            if (cache := self._open_cache(split)) is not None:
                cache.fill()

    def describe(self, split: str) -> str:
        """Say what the films of a split are."""
        films, file = self.films(split), self.files[split]
        classes = len({film.label for film in films})
        return f"{'/'.join(file.parts[-2:])}, {number_of(len(films), 'film')} of {classes} classes"

    def recipe(self) -> dict[str, Any]:
        """Say how the frames of a clip are chosen and scaled."""
        frames = {"frames": self.frames, "sampling": self.sampling}
        size = {"frame_size": self.frame_size, "version": VERSION}
        return {"features": {"video": frames | size}}

    def _check(self) -> None:
        if self.sampling not in SAMPLINGS:
            raise LabelError(
                f"data.sampling: unknown {self.sampling!r}; choose from {', '.join(SAMPLINGS)}"
            )
        frame_size("data.frame_size", self.frame_size)
        check_frames(self.frames)
        if not 0 <= self.max_bad <= 1:
            raise LabelError(f"data.max_bad is {self.max_bad:g}; it is a share, such as 0.05")

    def _read(self, path: Path) -> Found:
        if path not in self._found:
            root = Path(self.root).expanduser() if self.root else None
            self._found[path] = read_films(path, self._names(), root)
        return self._found[path]

    def _names(self) -> list[str] | None:
        if self.classes is None:
            return None
        try:
            text = Path(self.classes).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise LabelError(f"data.classes: {self.classes} cannot be read ({error})") from None
        return [line.strip() for line in text.splitlines() if line.strip()]

    def _list_classes(self) -> list[str]:
        """List the names of the classes: those of the file, or of the films that are there."""
        if names := self._names():
            return names
        split = "train" if "train" in self.files else next(iter(self.files))
        found = self._read(self.files[split])
        parts = zip(found.films, found.splits, strict=True)
        counts = Counter(film.label for film, own in parts if own in ("", split))
        numbered = all(map(is_number, counts))
        return sorted(counts, key=(lambda name: (int(name), name)) if numbered else None)

    def _open_cache(self, split: str) -> FrameCache | None:
        films, folder = tuple(self.films(split)), self._read(self.files[split]).folder
        if (folder, films) not in self._caches:
            kept = None if self.cache is False else FrameCache(folder, films, self.size, WAY_OUT)
            if kept is not None and self.cache is None and not kept.is_filled:
                needed = kept.estimate()
                if needed > min(CACHE_BYTES, 0.5 * free_bytes()):
                    warn(
                        f"{split}: films are decoded in training, as their frames take about"
                        f" {needed / 1e9:.0f} GB; data.cache=true keeps them, and"
                        " trainer.num_workers decodes in other processes"
                    )
                    kept = None
            self._caches[folder, films] = kept
        return self._caches[folder, films]
