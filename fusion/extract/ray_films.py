"""Extract films on a Ray cluster: the same rows as in one process, in the order of the plan."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

from fusion.extract.decoder_pool import DecoderPool, Task
from fusion.extract.films import Event, Extracted, Extractor, own_device
from fusion.extract.ray_cluster import Cluster, compute_films
from fusion.extract.settings import Features, describe


class RayExtractor:
    """Does what :class:`.films.Extractor` does, on a Ray cluster.

    Args:
        cluster: where.
        features: what to extract.
        settings: of the store, see :func:`.settings.describe`; those of each worker must be equal.
        time_limit: see :class:`.DecoderPool`.
    """

    def __init__(
        self, cluster: Cluster, features: Features, settings: Mapping[str, Any], time_limit: float
    ) -> None:
        self._cluster, self._arguments = cluster, (features, settings, time_limit)

    def extract(self, tasks: Sequence[Task]) -> Generator[tuple[Task, Event], None, None]:
        """Extract films; they end in the order of ``tasks``."""
        answers = compute_films(self._cluster, tasks, Films, self._arguments)
        try:
            for task, answer in zip(tasks, answers, strict=True):
                film = answer.value or Extracted({}, {}, answer.problem)
                if film.problem is None:
                    yield task, film.facts["duration"]
                yield task, film
        finally:
            answers.close()


class Films:
    """Extracts one film after the other in a worker, with one program that decodes."""

    def __init__(self, features: Features, settings: Mapping[str, Any], time_limit: float) -> None:
        backbones = {field: b.to(own_device()) for field, b in features.build().items()}
        if (ours := describe(backbones, features.audio, features.tracks)) != settings:
            differ = next(k for k in {**settings, **ours} if settings.get(k) != ours.get(k))
            raise ValueError(
                f"a worker has other settings of {differ}: {ours.get(differ)}, and not"
                f" {settings.get(differ)}; install the same versions and weights on all machines"
            )
        samplings = {field: backbone.sampling for field, backbone in backbones.items()}
        decoders = DecoderPool(samplings, features.audio, 1, time_limit, features.tracks)
        self._task: Task | None = None
        self._events = Extractor(backbones, decoders).extract(self._tasks())

    def __call__(self, task: Task) -> Extracted:
        """Extract a film."""
        self._task = task
        for _, event in self._events:
            if isinstance(event, Extracted):
                features = {field: rows.numpy() for field, rows in event.features.items()}
                return event._replace(features=features)
        raise AssertionError("there is an end of every film")

    def _tasks(self) -> Iterator[Task]:
        """Give the program the film of the call in which it asks: it never asks ahead."""
        while self._task is not None:
            yield self._task
