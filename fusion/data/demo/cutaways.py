"""Version 3 of the built-in corpus: only sight and sound together say what the sentence is about.

As in real films, the picture often cuts to another thing than the one that is spoken of. Each thing
is indoors or outdoors; the sound was recorded where the thing is that is spoken of. So:

* who only sees does not know which of two shots is meant;
* who only hears does not know any thing;
* who sees and hears knows: the shot whose place is that of the sound.

The other thing is spoken of in other scenes of the same film, with the same tunes. So a film has
clips that only this knowledge tells apart, unless the sentence says the place (one of three does).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from fusion.data.demo.plan import (
    NUM_THINGS,
    NUM_TUNES,
    Film,
    Recipe,
    Scene,
    Shot,
    combination_of,
    film_generator,
    narrate,
    seen_of,
)
from fusion.data.demo.sentences import add_place

CUTAWAY = 0.6  # share of scenes with two shots
SAID_PLACE = 0.35  # share of sentences that say the place
FIRST_SHOT = (0.42, 0.58)  # its share of such a scene
PLACES = ("indoors", "outdoors")

RECIPE = Recipe(
    version=3,
    films={"train": 450, "validation": 34, "test": 68},
    most_films=870,
    scene_frames=(26, 34),
    mistimed=0.1,
    mistimed_seconds=0.5,
)

SQUARES_PER_FILM = 2
DRAW = 1  # of the splits: drawn again after corpus and config were fixed
ORDER = 10_000  # a stream of random numbers that no scene has
GROUP = 12  # things that are paired with one another

# Two things and two tunes: all four combinations are scenes of one film.
Square = tuple[tuple[int, int], tuple[int, int]]


def plan(size: int | None = None) -> list[Film]:
    """Draw all films; ``size`` is that of :meth:`.Recipe.sizes`."""
    squares = draw_squares(np.random.default_rng([RECIPE.version, DRAW]))
    first, films = 0, []
    counts = RECIPE.sizes(size)
    for split in ("test", "validation", "train"):  # so that the tests do not depend on the size
        for index in range(counts[split]):
            start = first + SQUARES_PER_FILM * index
            films.append(_plan_film(split, index, squares[start : start + SQUARES_PER_FILM]))
        first += SQUARES_PER_FILM * RECIPE.films[split]
    return sorted(films, key=lambda film: list(counts).index(film.split))


def draw_squares(rng: np.random.Generator) -> list[Square]:
    """Cut the table of all things and tunes into squares, so that each combination is in one."""
    squares: list[Square] = []
    for things in rng.permutation(NUM_THINGS).reshape(-1, GROUP):
        # Other pairs in each group of things, and other pairs of things for each pair of tunes.
        for tunes in rng.permutation(NUM_TUNES).reshape(-1, 2).tolist():
            pairs = rng.permutation(things).reshape(-1, 2).tolist()
            squares += [((a, b), (tunes[0], tunes[1])) for a, b in pairs]
    return [squares[i] for i in rng.permutation(len(squares))]


def _plan_film(split: str, index: int, squares: list[Square]) -> Film:
    # A scene's content: what it is about, and the other thing of its square
    contents = [
        (combination_of(things[i], tune), combination_of(things[1 - i], tune))
        for things, tunes in squares
        for i in (0, 1)
        for tune in tunes
    ]
    order = film_generator(RECIPE.version, split, index, ORDER).permutation(len(contents))
    contents = [contents[i] for i in order]
    film, rng = narrate(RECIPE, split, index, [values for values, _ in contents])
    scenes = [
        _with_places(scene, other, rng)
        for scene, (_, other) in zip(film.scenes, contents, strict=True)
    ]
    return dataclasses.replace(film, scenes=tuple(scenes))


def _with_places(scene: Scene, other: dict[str, str], rng: np.random.Generator) -> Scene:
    """Draw where a scene is recorded, and perhaps a cut to or from the ``other`` thing."""
    here, elsewhere = rng.permutation(PLACES).tolist()
    shots = [Shot(seen_of(scene.values), scene.num_frames, here)]
    if rng.random() < CUTAWAY:
        first = round(scene.num_frames * rng.uniform(*FIRST_SHOT))
        shots.append(Shot(seen_of(other), 0, elsewhere))
        shots = [shots[i] for i in rng.permutation(2)]
        lengths = first, scene.num_frames - first
        shots = [dataclasses.replace(s, num_frames=n) for s, n in zip(shots, lengths, strict=True)]
    scene = dataclasses.replace(scene, shots=tuple(shots), place=here)
    if scene.text and rng.random() < SAID_PLACE:
        text = add_place(scene.text, here, rng)
        scene = dataclasses.replace(scene, text=text, says_place=True)
    return scene
