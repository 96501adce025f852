"""Indexes of random vectors, made without a model."""

import contextlib

import numpy as np

from fusion.search.storage import Clip, Film, Storage

MODALITIES = ["text", "video", "audio"]
COMBINATIONS = ["t", "v", "a", "tv", "ta", "va", "tva"]


def put(folder, films, seed=0, width=8, gone=(), combinations=COMBINATIONS, distinct=None):
    """Put films into an index: what each clip has, by the name of the film; and remove others.

    Of vectors that are ``distinct`` in so many ways only, some are equal.
    """
    rng = np.random.default_rng(seed)
    pool = unit(rng, distinct or 1, width)
    with contextlib.closing(Storage(folder, write=True)) as storage:
        if storage.fact("model") is None:
            storage.set_facts(
                model="none", combinations=list(combinations), modalities=MODALITIES, rows=0
            )
        for name, has in films.items():
            vectors = {}
            for combination in combinations:
                there = np.array([set(combination) <= set(letters) for letters in has], "f4")
                values = unit(rng, len(has), width)
                if distinct:
                    values = pool[rng.integers(0, distinct, len(has))]
                vectors[combination] = values * there.reshape(-1, 1)
            clips = [Clip(i, i + 1.0, f"{name} {i}", one) for i, one in enumerate(has)]
            film = Film(f"/films/{name}", f"state {seed}", float(len(has)))
            storage.replace(film, clips, vectors if has else {})
        storage.relocate([f"/films/{name}" for name in gone], {})
        storage.compact()
    return folder


def unit(rng, count, width):
    """Draw vectors of unit length."""
    vectors = rng.standard_normal((count, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def slow(folder, query, asked, name=""):
    """Search by hand: (number of a clip, cosine, calibrated), the best first."""
    with contextlib.closing(Storage(folder)) as storage:
        clips = [*zip(*storage.table(), strict=True)]
        vectors = {c: storage.vectors(c) for c in storage.fact("combinations")}
    query = query.astype(np.float64)
    dots = {
        (c, int(number)): vectors[c][row].astype(np.float64) @ query
        for number, row, _, has in clips
        for c in asked
        if set(c) <= set(has)
    }
    means = {c: np.mean([dot for (of, _), dot in dots.items() if of == c]) for c, _ in dots}
    found = []
    for number, _, film, has in clips:
        chosen = max([c for c in asked if set(c) <= set(has)], key=len, default=None)
        if chosen and name in film:
            dot = dots[chosen, int(number)]
            found.append((int(number), dot, dot - means[chosen]))
    return sorted(found, key=lambda one: (-one[2], one[0]))
