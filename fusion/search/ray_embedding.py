"""Embed films on a Ray cluster: the same clips and vectors as in one process, in the same order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence

from fusion.extract.ray_cluster import Cluster, compute_films
from fusion.inference.loading import load
from fusion.search.films.embedding import AGAIN, FilmEmbedded, FilmToEmbed, embed_film
from fusion.search.records import Film


class RayEmbedder:
    """Does what :func:`.indexing.embed_films` does, on a Ray cluster.

    Args:
        cluster: where.
        model: what :func:`fusion.load` takes; the same on all machines.
        digest: of the model; that of each worker's must be equal.
        trust: see :func:`fusion.load`.
    """

    def __init__(self, cluster: Cluster, model: str, digest: str, trust: bool = False) -> None:
        self._cluster, self._arguments = cluster, (model, digest, trust)

    def embed(self, films: Sequence[FilmToEmbed]) -> Generator[FilmEmbedded, None, None]:
        """Embed films, in their order.

        A film whose workers end, or that is not there where a worker is, has a state that is never
        that of a file: the next run tries it again.
        """
        answers = compute_films(self._cluster, films, Films, self._arguments)
        try:
            for film, answer in zip(films, answers, strict=True):
                if answer.problem is None:
                    yield answer.value
                else:
                    yield FilmEmbedded(
                        Film(film.path, AGAIN, 0.0, answer.problem), [], {}, Counter()
                    )
        finally:
            answers.close()


class Films:
    """Embeds one film after the other in a worker."""

    def __init__(self, model: str, digest: str, trust: bool) -> None:
        self._model = load(model, trust=trust)
        if self._model.digest != digest:
            raise ValueError(
                f"{model} has other weights where a worker is (digest {self._model.digest}, not"
                f" {digest}); all machines must have the same model under this name"
            )

    def __call__(self, film: FilmToEmbed) -> FilmEmbedded:
        """Embed a film."""
        return embed_film(self._model, film)
