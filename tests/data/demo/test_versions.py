"""The versions of the built-in corpus: what is published of each never changes."""

import hashlib

import numpy as np
import pytest

from fusion.data.demo import VERSION, demo_corpus
from fusion.data.demo.film import scene_frames, scene_wave
from fusion.data.demo.plan import Film, Scene
from fusion.data.demo.versions import RECIPES, plan_corpus

OF_SCENES = ("values", "num_frames", "caption_start", "caption_end", "text", "unsaid")
OF_SCENES += ("has_picture", "has_sound")
OF_FILMS = ("split", "index", "scenes", "has_video_stream", "has_audio_stream")


def spelled(thing):
    """Write a plan with the fields that version 2 was published with."""
    if isinstance(thing, Film | Scene):
        names = OF_FILMS if isinstance(thing, Film) else OF_SCENES
        pairs = ", ".join(f"{name}={spelled(getattr(thing, name))}" for name in names)
        return f"{type(thing).__name__}({pairs})"
    if isinstance(thing, list):
        return f"[{', '.join(map(spelled, thing))}]"
    if isinstance(thing, tuple) and len(thing) > 1 and isinstance(thing[0], Scene):
        return f"({', '.join(map(spelled, thing))})"
    return repr(thing)


def test_the_plan_of_version_2_never_changes():
    """Caches hold the corpus under its number: what must change becomes another version."""
    plan = plan_corpus(version=2)
    assert hashlib.md5(spelled(plan).encode()).hexdigest() == "a42eb19a63055788073eca4568c48a32"


def test_what_version_2_shows_and_plays_never_changes():
    """Means, as renderings of other processors differ by rounding; measured when it was made."""
    film = plan_corpus(1, 2)[0]
    scenes = list(enumerate(film.scenes))
    lights = [scene_frames(film, n, scene).mean() for n, scene in scenes]
    assert lights == pytest.approx([134.713, 110.813, 152.79, 118.748, 83.478, 118.854], abs=0.02)
    levels = [np.square(scene_wave(film, n, scene)).mean() ** 0.5 for n, scene in scenes]
    expected = [0.14144, 0.167429, 0.07046, 0.047827, 0.048517, 0.050726]
    assert levels == pytest.approx(expected, rel=1e-4)


def test_the_plan_of_version_3_never_changes():
    plan = plan_corpus(version=3)
    assert hashlib.md5(repr(plan).encode()).hexdigest() == "8cc7a1526ed6540f646fbdd565c3d4ff"


def test_scenes_of_version_2_have_one_shot_and_no_place():
    for scene in (scene for film in plan_corpus(version=2) for scene in film.scenes):
        assert scene.place == scene.shots[0].place == "" and not scene.says_place
        assert len(scene.shots) == 1
        assert scene.shots[0].values.items() <= scene.values.items()


def test_films_say_of_which_version_they_are():
    assert VERSION == 3
    for version in RECIPES:
        assert {film.version for film in plan_corpus(1, version)} == {version}


@pytest.mark.parametrize("version", [1, 4, "3"])
def test_an_unknown_version_is_an_error_that_names_the_known_ones(version, tmp_path):
    with pytest.raises(ValueError, match=f"data.version is {version!r}; choose from 2, 3"):
        demo_corpus(tmp_path, version=version)
    assert not [*tmp_path.iterdir()]
