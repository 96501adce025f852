"""Version 3 of the built-in corpus: what scenes show, and of which thing they speak."""

import re

import numpy as np
import pytest

from fusion.data.demo.cutaways import CUTAWAY, FIRST_SHOT, PLACES, SAID_PLACE, draw_squares
from fusion.data.demo.plan import BLACK, NUM_COMBINATIONS, NUM_THINGS, NUM_TUNES, SILENT, seen_of
from fusion.data.demo.sentences import AUDIBLE, PLACE_WORDS
from fusion.data.demo.versions import plan_corpus

MOST_FILMS = 870


@pytest.fixture(scope="module")
def films():
    return plan_corpus(version=3)


@pytest.fixture(scope="module")
def scenes(films):
    return [scene for film in films for scene in film.scenes]


def thing_of(values):
    return tuple(seen_of(values).values())


def content_of(scene):
    """What a scene is about: a thing and a tune."""
    return thing_of(scene.values), tuple(scene.values[attribute] for attribute in AUDIBLE)


def other_of(scene):
    """The thing that a scene shows, but does not speak of; None if there is none."""
    others = [shot for shot in scene.shots if shot.values != seen_of(scene.values)]
    return thing_of(others[0].values) if others else None


def assert_share(flags, share):
    """Allow four standard deviations of so many independent draws."""
    flags = np.array(flags)
    assert abs(flags.mean() - share) < 4 * np.sqrt(share * (1 - share) / len(flags))


def test_each_combination_of_attributes_is_in_exactly_one_scene_of_all():
    contents = [content_of(s) for film in plan_corpus(MOST_FILMS, 3) for s in film.scenes]
    assert len(contents) == len(set(contents)) == NUM_COMBINATIONS


def test_squares_hold_each_combination_once():
    squares = draw_squares(np.random.default_rng(0))
    pairs = [(thing, tune) for things, tunes in squares for thing in things for tune in tunes]
    assert sorted(pairs) == [(a, b) for a in range(NUM_THINGS) for b in range(NUM_TUNES)]


def test_all_four_combinations_of_two_things_and_two_tunes_are_in_one_film(films):
    for film in films:
        left = {content_of(scene) for scene in film.scenes}
        assert len(left) == len(film.scenes) == 8
        for scene in film.scenes:
            thing, tune = content_of(scene)
            squares = [
                {(a, b) for a in (thing, other) for b in (tune, another)}
                for other in {a for a, _ in left} - {thing}
                for another in {b for _, b in left} - {tune}
            ]
            assert any(square <= left for square in squares)


def test_the_other_thing_of_a_scene_is_spoken_of_in_the_same_film_with_the_same_tune(films):
    for film in films:
        contents = {content_of(scene) for scene in film.scenes}
        for scene in film.scenes:
            other = other_of(scene)
            assert other is None or (other, content_of(scene)[1]) in contents


def test_so_many_scenes_have_two_shots(scenes):
    assert {len(scene.shots) for scene in scenes} == {1, 2}
    assert_share([len(scene.shots) == 2 for scene in scenes], CUTAWAY)
    cut = [scene for scene in scenes if len(scene.shots) == 2]
    shares = [scene.shots[0].num_frames / scene.num_frames for scene in cut]
    low, high = FIRST_SHOT
    assert low - 0.03 < min(shares) < low + 0.03 and high - 0.03 < max(shares) < high + 0.03
    assert all(other_of(scene) for scene in cut)


def test_exactly_one_shot_is_where_the_sound_was_recorded_and_shows_what_is_spoken_of(scenes):
    for scene in scenes:
        assert scene.place in PLACES
        here = [shot for shot in scene.shots if shot.place == scene.place]
        assert [shot.values for shot in here] == [seen_of(scene.values)]
        assert {shot.place for shot in scene.shots} <= set(PLACES)


def said(scene):
    """The places whose words are in the text of a scene."""
    return {
        place
        for place, phrases in PLACE_WORDS.items()
        if any(re.search(rf"\b{phrase}\b", scene.text) for phrase in phrases)
    }


def test_a_sentence_says_the_place_of_its_sound_or_none(scenes):
    for scene in scenes:
        assert said(scene) == ({scene.place} if scene.says_place else set())
    assert_share([scene.says_place for scene in scenes if scene.text], SAID_PLACE)
    texts = " ".join(scene.text for scene in scenes)
    assert all(phrase in texts for phrases in PLACE_WORDS.values() for phrase in phrases)


def test_so_many_scenes_are_black_or_silent(films):
    for has, share, stream in (
        ("has_picture", BLACK, "has_video_stream"),
        ("has_sound", SILENT, "has_audio_stream"),
    ):
        whole = [film for film in films if getattr(film, stream)]
        assert_share([not getattr(scene, has) for film in whole for scene in film.scenes], share)
