"""Read rows of the features of videos: from a reader of any kind, published or computed here."""

from __future__ import annotations

import csv
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fusion.data.features.format import Field
from fusion.data.features.problems import find_problem
from fusion.data.media.log_mel import NUM_MELS, spectrogram_seconds
from fusion.data.untrusted.npz import read_npz
from fusion.files import missing_folder

AUDIO = Field(NUM_MELS, 100.0)
VIDEO = ("2d", "3d")  # the fields of the modality video
KEPT = 3  # videos in memory, as clips of one video are often read one after the other


class Reader(Protocol):
    """Reads features; ``fields`` are the kinds there are.

    ``2d`` and ``3d`` make video, ``audio`` is a spectrogram, any other is a modality of its own.
    """

    fields: Mapping[str, Field]
    videos: Sequence[str]

    def rows(self, video: str, field: str) -> int:
        """Return how many rows a video has of a field."""

    def read(self, video: str, field: str, first: int = 0, last: int | None = None) -> Tensor:
        """Read some rows: (last - first, width), fewer at the end of the video."""


def seconds_of(reader: Reader, video: str) -> float:
    """Return the seconds that the features of a video cover; 3D counts only without 2D."""
    frames = reader.rows(video, "audio") if "audio" in reader.fields else 0
    covered = [spectrogram_seconds(frames) if frames else 0.0]
    for name, field in reader.fields.items():
        if name != "audio" and not (name == "3d" and "2d" in reader.fields):
            covered.append(reader.rows(video, name) / field.per_second)
    return max(covered)


class JoinedFeatures:
    """Features of a reader, and some fields of the same videos from other readers, by field."""

    def __init__(self, main: Reader, others: Mapping[str, Reader]) -> None:
        self.main, self.others = main, others
        self.videos: Sequence[str] = main.videos
        further = {name: reader.fields[name] for name, reader in others.items()}
        self.fields: Mapping[str, Field] = {**main.fields, **further}

    def rows(self, video: str, field: str) -> int:
        """Return how many rows a video has of a field; 0 if its reader lacks the video."""
        reader = self.others.get(field, self.main)
        return reader.rows(video, field) if reader is self.main or video in reader.videos else 0

    def read(self, video: str, field: str, first: int = 0, last: int | None = None) -> Tensor:
        """Read some rows of a field."""
        if not self.rows(video, field):
            return torch.zeros(0, self.fields[field].width)
        return self.others.get(field, self.main).read(video, field, first, last)


class PublishedFolders:
    """HowTo100M's features in a file for each video and kind, as published.

    ``FEATURES/PATH/ID_2d.npz`` or ``FEATURES/PATH_2d.npz``, ``FEATURES/PATH/ID_3d.npz`` or
    ``ID.npz`` (``features``, (rows, width)), ``AUDIO/PATH/ID_spec.npz`` (``arr_0``, (40, frames)).
    A file is read as a whole even for a few rows; ``fusion pack`` makes a store of them.

    ``videos`` is a csv file with a column ``path``; a damaged file of any kind is a ValueError.
    """

    def __init__(
        self, videos: Path, features: Path, audio: Path, fields: Mapping[str, Field]
    ) -> None:
        self.fields, self.features, self.audio = fields, features, audio
        self.videos: Sequence[str] = read_paths(videos)
        self._kept: OrderedDict[tuple[str, str], Tensor] = OrderedDict()

    def rows(self, video: str, field: str) -> int:
        """Return how many rows a video has of a field; raises as :meth:`read` does."""
        return len(self._whole(video, field))

    def read(self, video: str, field: str, first: int = 0, last: int | None = None) -> Tensor:
        """Read some rows of a field; ValueError: the file is missing or damaged."""
        return self._whole(video, field)[max(first, 0) : last]

    def path(self, video: str, field: str) -> Path:
        """Find the file of a video; if there is none, return the first place where it may be."""
        name = video.rsplit("/", 1)[-1]
        folder = (self.audio if field == "audio" else self.features) / video
        places = {
            "2d": [folder / f"{name}_2d.npz", folder.parent / f"{name}_2d.npz"],
            "3d": [folder / f"{name}_3d.npz", folder / f"{name}.npz"],
            "audio": [folder / f"{name}_spec.npz"],
        }[field]
        return next((place for place in places if place.exists()), places[0])

    def _whole(self, video: str, field: str) -> Tensor:
        if (video, field) not in self._kept:
            path = self.path(video, field)
            values = read_npz(path, "arr_0" if field == "audio" else "features")
            values = values.T if field == "audio" and values.ndim == 2 else values
            if why := find_problem(values, self.fields[field].width, finite=False):
                raise ValueError(f"{path}: {why}")
            with np.errstate(over="ignore"):  # infinite values are reported where they are used
                floats = np.array(values, np.float16 if values.dtype == np.float16 else np.float32)
            self._kept[video, field] = torch.from_numpy(floats)
            while len(self._kept) > KEPT * len(self.fields):
                self._kept.popitem(last=False)
        self._kept.move_to_end((video, field))
        return self._kept[video, field]


def read_paths(file: Path) -> list[str]:
    """Read the column ``path`` of a csv file, without the ``None/`` that some begin with."""
    try:
        with open(file, encoding="utf-8-sig", newline="") as opened:
            rows = list(csv.DictReader(opened))
    except FileNotFoundError:
        raise ValueError(
            f"{file} is missing{missing_folder(file)}; it lists the videos in a column 'path'"
        ) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{file} cannot be read ({error}); it lists the videos") from None
    if not rows or "path" not in rows[0]:
        raise ValueError(f"{file} has no column 'path', which names the videos")
    return [row["path"].replace("None/", "") for row in rows]
