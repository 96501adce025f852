"""The features of a film while it is read: a few seconds of pictures are in memory at a time.

The spectrogram depends on the mean and the loudest moment of the whole sound, so the sound is read
first, which is quick; it takes 29 MB an hour. Then pictures are read, and their features come out.

Shapes: R rows of width D.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fusion.data.features import computed
from fusion.data.features.format import Field
from fusion.data.features.readers import seconds_of
from fusion.data.media.decode import MediaError
from fusion.data.media.film import Film
from fusion.data.media.log_mel import Spectrogram
from fusion.extract.films import FilmRows
from fusion.inference.features import FilmFeatures

ONLY = "0"  # name of the film


class FilmStream:
    """A :class:`fusion.data.features.readers.Reader` of the rows that are computed so far.

    Args:
        features: how features are computed.
        path: of the film.

    Attributes:
        ended: whether the film was read to its end.

    Raises:
        MediaError: neither picture nor sound can be read.
    """

    def __init__(self, features: FilmFeatures, path: Path) -> None:
        self.videos: Sequence[str] = [ONLY]
        self.fields: Mapping[str, Field] = features.fields
        self.ended = False
        self._features, self._path = features, path
        self._rows = {f: torch.zeros(0, field.width) for f, field in self.fields.items()}
        self._gone = dict.fromkeys(self.fields, 0)  # rows that were forgotten
        problems: list[str] = []
        if "audio" in self.fields:
            self._rows["audio"] = self._hear(problems)
        self._pieces = self._compute(problems)
        self._problems = problems

    @property
    def seconds(self) -> float:
        """For how long there are features; complete once the film has ended."""
        return seconds_of(self, ONLY)

    @property
    def seen(self) -> float:
        """For how long every field but the sound has rows; that of the film without any."""
        return min(
            (self.rows(ONLY, f) / self.fields[f].per_second for f in self._others()), default=0
        )

    def _others(self) -> list[str]:
        return [field for field in self.fields if field != "audio"]

    def advance(self) -> None:
        """Read on, until there are further rows or the film ends."""
        for made in self._pieces:
            for field, rows in made.items():
                self._rows[field] = torch.cat([self._rows[field], rows.float()])
            if any(map(len, made.values())):
                return
        self.ended = True
        if not any(self.rows(ONLY, field) for field in self.fields):
            raise MediaError("; ".join(self._problems) or f"{self._path}: nothing to extract")

    def forget(self, second: float) -> None:
        """Drop the rows of pictures that end before some second."""
        for field in self._others():
            first = int(second * self.fields[field].per_second) - self._gone[field]
            if first > 0:
                self._rows[field] = self._rows[field][first:].clone()
                self._gone[field] += first

    def rows(self, video: str, field: str) -> int:
        """Return how many rows there are of a field so far, with those that were forgotten."""
        return self._gone.get(field, 0) + len(self._rows.get(field, ()))

    def read(self, video: str, field: str, first: int = 0, last: int | None = None) -> Tensor:
        """Read some rows of a field, which must not be forgotten."""
        gone = self._gone[field]
        return self._rows[field][
            max(first - gone, 0) : None if last is None else max(last - gone, 0)
        ]

    def _hear(self, problems: list[str]) -> Tensor:
        spectrogram = Spectrogram()
        try:
            for piece in Film(self._path, {}, True, self._features.tracks).pieces():
                spectrogram.push(piece.data)
        except MediaError as error:
            problems.append(str(error))
        return spectrogram.end()

    def _compute(self, problems: list[str]) -> Iterator[dict[str, Tensor]]:
        samplings = self._features.samplings
        if not samplings:
            return
        extractor = self._features.extractor
        track: Any = FilmRows(self._features.backbones)
        if extractor is not None:
            track = computed.DescriptorRows(computed.EXTRACTORS[extractor])
        try:
            for piece in Film(self._path, samplings, False, self._features.tracks).pieces():
                track.push(piece)
                yield track.take()
        except MediaError as error:
            problems.append(str(error))
        yield {field: rows for field, rows in track.end().items() if field in self._others()}
