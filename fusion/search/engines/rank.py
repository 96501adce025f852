"""Find the clips nearest to an embedding, on the calibrated score, with any engine.

Shapes: N clips, E embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion.search.engines.engine import Engine, Wanted, exact_dots
from fusion.search.snapshot import Snapshot


class Found(NamedTuple):
    """A clip that was found."""

    place: int  # in the snapshot
    cosine: float  # of the combination that was compared
    calibrated: float  # cosine above the mean of its combination


def rank(
    snapshot: Snapshot,
    engine: Engine,
    query: NDArray[np.float32],
    count: int,
    asked: Sequence[str],
    films: tuple[int, ...] | None = None,
    but: int | None = None,
) -> list[Found]:
    """Find the clips nearest to an embedding, the nearest first; of equal ones the lower number.

    Args:
        snapshot: of the index.
        engine: proposes candidates.
        query: (E,).
        count: how many.
        asked: combinations to compare; each clip in the largest that it has.
        films: numbers of the films to search in; None: all.
        but: place of a clip to leave out.
    """
    among = None if films is None else np.isin(snapshot.films, films)
    places, cosines, values = [], [], []
    for combination, group in snapshot.groups(asked).items():
        allowed = group.clips if among is None else group.clips & among
        if not allowed.any():
            continue
        more = count + (but is not None)
        wanted = Wanted(combination, query, more, group.has, films, allowed)
        found = engine.candidates(snapshot, wanted)
        dots = exact_dots(snapshot.vectors[combination], snapshot.rows[found], query)
        places.append(found)
        cosines.append(dots)
        values.append(dots - (snapshot.mean(combination) * query).sum())
    if not places:
        return []
    place, cosine, value = (np.concatenate(parts) for parts in (places, cosines, values))
    value = value.astype(np.float32)
    order = np.lexsort((place, -value))
    order = order[place[order] != but] if but is not None else order
    return [Found(int(place[i]), float(cosine[i]), float(value[i])) for i in order[:count]]


def why(snapshot: Snapshot, place: int, query: NDArray[np.float32]) -> dict[str, float]:
    """Return the cosine of each single modality that a clip has, by name."""
    row, has = snapshot.rows[place : place + 1], snapshot.letters_of(place)
    return {
        name: float(exact_dots(snapshot.vectors[name[0]], row, query)[0])
        for name in snapshot.modalities
        if name[0] in has and name[0] in snapshot.combinations
    }
