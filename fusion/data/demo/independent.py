"""Version 2 of the built-in corpus: what is seen says nothing of what is heard."""

from __future__ import annotations

import numpy as np

from fusion.data.demo.plan import NUM_COMBINATIONS, Film, Recipe, combination, narrate

SCENES_PER_FILM = (6, 9, 7, 8)  # in turn

# Shares of all combinations of attributes that only one split may use; training has the rest.
RESERVED = {"test": 0.2, "validation": 0.1}

RECIPE = Recipe(
    version=2,
    films={"train": 320, "validation": 36, "test": 72},
    most_films=725,
    scene_frames=(25, 35),
    mistimed=0.15,
    mistimed_seconds=1.0,
)


def plan(size: int | None = None) -> list[Film]:
    """Draw all films; ``size`` is that of :meth:`.Recipe.sizes`."""
    # Each split gets its own part of the combinations, in a random order.
    order = np.random.default_rng([RECIPE.version]).permutation(NUM_COMBINATIONS).tolist()
    test = round(RESERVED["test"] * NUM_COMBINATIONS)
    rest = test + round(RESERVED["validation"] * NUM_COMBINATIONS)
    pools = {"train": order[rest:], "validation": order[test:rest], "test": order[:test]}
    films = []
    for split, count in RECIPE.sizes(size).items():
        first = 0
        for index in range(count):
            last = first + SCENES_PER_FILM[index % len(SCENES_PER_FILM)]
            contents = [combination(number) for number in pools[split][first:last]]
            films.append(narrate(RECIPE, split, index, contents)[0])
            first = last
    return films
