"""Features of media files, made as those were that a model was trained with.

A checkpoint keeps the recipe of its features (``recipe.json``, see :meth:`Source.recipe` in
:mod:`fusion.data.datasets.dataset`): hand-made descriptors, or the networks of a feature store
with digests of their weights.

Shapes: R rows of width D.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from fusion.checkpoint import CheckpointError, check_recipe
from fusion.data.features import computed
from fusion.data.features.format import Field
from fusion.data.features.readers import AUDIO, VIDEO
from fusion.data.labelled.raw_video import KEY as RAW
from fusion.data.media.decode import MediaError
from fusion.data.media.film import Film, Piece
from fusion.data.media.log_mel import log_mel
from fusion.data.media.pictures import Sampling
from fusion.data.media.sound import Hearing
from fusion.data.media.streams import Tracks
from fusion.extract.films import FilmRows
from fusion.extract.settings import NETWORKS, Features, describe, fields_of
from fusion.extract.weights import RANDOM
from fusion.inference.frames import FilmFrames

KEPT = 16  # films whose features stay in memory


class Reading(Protocol):
    """Reads media files in another process, for files of strangers."""

    def pieces(
        self, path: Path, samplings: Mapping[str, Sampling | Hearing], audio: bool
    ) -> Iterator[Piece]:
        """Do what :meth:`.Film.pieces` does."""


class FilmFeatures:
    """Computes the features of films as a recipe says.

    Args:
        recipe: ``features`` of a checkpoint's recipe.
        device: of the networks.
        weights: files of weights by field, ``2d``, ``3d``, ``sound``, for networks whose weights
            are not published where timm and torch look for them; of transformers a folder.

    Attributes:
        fields: the kinds of features there are.
        extractor: of descriptors; None: ``backbones``, networks by field, make the features.
        tracks: which of several tracks are read.
        frames: reads the frames of clips, for a model trained with ``data.raw_video``; None: it was
            trained from features alone.
        readings: who reads a film instead of this process, which would also cache descriptors.

    Raises:
        CheckpointError: the recipe is unknown here, or the weights are not those of the recipe.
    """

    def __init__(
        self,
        recipe: Mapping[str, Any],
        device: torch.device | str = "cpu",
        weights: Mapping[str, str | Path] | None = None,
    ) -> None:
        recipe = dict(recipe)
        raw = recipe.pop(RAW, None)
        self.frames = None if raw is None else FilmFrames(raw)
        self._hears_only = self.frames is not None and self.frames.replace_features
        self._kept: OrderedDict[tuple[str, int, int], dict[str, Tensor]] = OrderedDict()
        self.readings: dict[Path, Reading] = {}
        self.extractor: str | None = recipe.get("extractor")
        self.backbones: dict[str, Any] = {}
        self.tracks = Tracks(**recipe.get("tracks", {}))
        if self.extractor is not None:
            if self.extractor not in computed.EXTRACTORS:
                raise CheckpointError(
                    f"the model was trained with features of {self.extractor!r}, and this version"
                    f" of fusion makes {', '.join(computed.EXTRACTORS)}; use the version of then"
                )
            self.fields: Mapping[str, Field] = computed.fields_of(self.extractor)
            made = computed.recipe_of(self.extractor, self.tracks)
            _check(recipe, made, "this version of fusion")
            if self._hears_only:
                self.fields = {"audio": AUDIO}
            return
        if self._hears_only:  # networks of pictures need not be there
            recipe = {key: value for key, value in recipe.items() if key not in VIDEO}
        self._audio = "audio" in recipe
        chosen: dict[str, Any] = {"features_2d": "none", "features_3d": "none"}
        for field in NETWORKS:
            if recipe.get(field):
                chosen[f"features_{field}"] = recipe[field]["network"]
                chosen[f"weights_{field}"] = (weights or {}).get(field)
        is_random = any((recipe.get(f) or {}).get("weights") == RANDOM for f in NETWORKS)
        features = Features(**chosen, random_weights=is_random, audio=self._audio)
        backbones = features.build()
        self.backbones = {f: b.to(torch.device(device)) for f, b in backbones.items()}
        self.fields = fields_of(self.backbones, self._audio)
        _check(recipe, describe(self.backbones, self._audio, self.tracks), "the weights here")

    @property
    def samplings(self) -> dict[str, Sampling | Hearing]:
        """Which pictures, and sound of which rate, the features are made of."""
        if self.extractor is not None:
            return {"pictures": computed.EXTRACTORS[self.extractor].sampling}
        return {field: backbone.sampling for field, backbone in self.backbones.items()}

    def rows(self, path: Path) -> dict[str, Tensor]:
        """Compute the features of a film by field, (R, D); R is 0 for what it lacks.

        Raises:
            MediaError: the file cannot be read.
        """
        state = path.stat()
        key = (str(path.resolve()), state.st_size, state.st_mtime_ns)
        found = self._kept.pop(key, None)  # one step: several threads may ask
        if found is None:
            found = self._compute(path)
        self._kept[key] = found  # as the latest
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return found

    def _compute(self, path: Path) -> dict[str, Tensor]:
        there = self.readings.get(path)
        if self._hears_only and self.extractor is not None:
            return self._hear(path, there)
        if self.extractor is not None and there is not None:
            return computed.compute_elsewhere(path, self.extractor, there.pieces)
        if self.extractor is not None:
            return computed.compute_features(path, self.extractor, self.tracks)
        wanted = (path, self.samplings, self._audio)
        pieces = there.pieces(*wanted) if there else Film(*wanted, self.tracks).pieces()
        made = FilmRows(self.backbones)
        for piece in pieces:
            made.push(piece)
        return {field: rows for field, rows in made.end().items() if field in self.fields}

    def _hear(self, path: Path, there: Reading | None) -> dict[str, Tensor]:
        """Compute the spectrogram alone; the pictures are read as frames."""
        heard: list[Tensor] = [torch.zeros(0)]
        try:
            film = Film(path, {}, True, self.tracks)
            pieces = there.pieces(path, {}, True) if there else film.pieces()
            heard += [torch.from_numpy(piece.data) for piece in pieces]
        except MediaError:  # a film without sound may have a picture
            if there is not None or self.frames is None or not self.frames.seconds(path):
                raise
        return {"audio": log_mel(torch.cat(heard)).half()}


def _check(features: Mapping[str, Any], ours: Mapping[str, Any], here: str) -> None:
    trained, given = {"features": features}, {"features": ours}
    check_recipe(trained, given, "the model", here, "give the same networks and weights")


class ItemFeatures:
    """A :class:`fusion.data.features.readers.Reader` of one item; ``features`` are by field."""

    def __init__(
        self, name: str, fields: Mapping[str, Field], features: Mapping[str, Tensor]
    ) -> None:
        self.videos: Sequence[str] = [name]
        self.fields, self._features = fields, features

    def rows(self, video: str, field: str) -> int:
        """Return how many rows an item has of a field."""
        return len(self._features.get(field, ()))

    def read(self, video: str, field: str, first: int = 0, last: int | None = None) -> Tensor:
        """Read some rows of a field."""
        found = self._features.get(field)
        if found is None:
            return torch.zeros(0, self.fields[field].width)
        return found[max(first, 0) : last]
