"""The plan of the built-in corpus, its words, its pictures and sounds."""

from collections import Counter

import numpy as np
import pytest

from fusion.data.demo import demo_corpus
from fusion.data.demo.film import scene_frames, scene_wave
from fusion.data.demo.pictures import HEIGHT, SHAPES, TRACKS, WIDTH, render_pictures
from fusion.data.demo.plan import NUM_COMBINATIONS, SPLITS, combination
from fusion.data.demo.sentences import ATTRIBUTES, AUDIBLE, VISIBLE, WORDINGS, write_sentence
from fusion.data.demo.sounds import INSTRUMENTS, RHYTHMS, SAMPLE_RATE, render_sounds
from fusion.data.demo.versions import RECIPES, plan_corpus

VALUES = combination(0)


@pytest.fixture(scope="module", params=RECIPES, ids=lambda version: f"version {version}")
def recipe(request):
    return RECIPES[request.param]


@pytest.fixture(scope="module")
def plan(recipe):
    return plan_corpus(version=recipe.version)


def clips(plan, split):
    return [scene for film in plan if film.split == split for scene in film.scenes]


def combinations(scenes, attributes=ATTRIBUTES):
    return [tuple(scene.values[a] for a in attributes) for scene in scenes]


# The plan.


def test_no_combination_of_attributes_occurs_in_two_splits(plan):
    seen = {split: set(combinations(clips(plan, split))) for split in SPLITS}
    assert not seen["test"] & (seen["train"] | seen["validation"])
    assert not seen["train"] & seen["validation"]


def test_test_clips_are_many_and_no_two_alike(plan):
    found = combinations(clips(plan, "test"))
    assert len(found) >= 500
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("attributes", [VISIBLE, AUDIBLE], ids=["visible", "audible"])
def test_all_that_can_be_seen_and_all_that_can_be_heard_occurs_in_training(plan, attributes):
    possible = np.prod([len(values) for values in attributes.values()])
    assert len(set(combinations(clips(plan, "train"), attributes))) == possible


def test_combinations_are_numbered_without_gaps():
    named = {tuple(combination(n).values()) for n in range(NUM_COMBINATIONS)}
    assert len(named) == NUM_COMBINATIONS


def test_a_few_per_cent_of_clips_lack_something(plan):
    train, test = clips(plan, "train"), clips(plan, "test")
    for scenes in (train, test):
        assert 0.02 < np.mean([not s.has_picture for s in scenes]) < 0.08
        assert 0.02 < np.mean([not s.has_sound for s in scenes]) < 0.08
    assert 0.01 < np.mean([not s.text for s in train]) < 0.05
    assert all(s.text for s in test + clips(plan, "validation"))


def test_some_sentences_are_mistimed_by_up_to_so_many_seconds(plan, recipe):
    shifts = []
    for film in plan:
        starts = np.cumsum([0] + [s.num_frames for s in film.scenes]) / 10
        shifts += [s.caption_start - start for s, start in zip(film.scenes, starts, strict=False)]
        assert all(0 <= s.caption_start < s.caption_end <= starts[-1] for s in film.scenes)
    assert np.mean(np.abs(shifts) > 1e-6) == pytest.approx(recipe.mistimed, rel=0.2)
    assert np.abs(shifts).max() == pytest.approx(recipe.mistimed_seconds, rel=0.05)


def test_a_small_corpus_is_the_beginning_of_the_whole(plan, recipe):
    small = plan_corpus(2, recipe.version)
    for split in SPLITS:
        whole = [film for film in plan if film.split == split]
        assert [film for film in small if film.split == split] == whole[:2]
        assert len(whole) == recipe.films[split]


def test_a_larger_corpus_has_more_to_train_on_and_the_same_tests(plan, recipe):
    usual, many = recipe.films["train"], recipe.films["train"] + 80
    larger = plan_corpus(many, recipe.version)
    assert larger[:usual] == plan[:usual]
    assert larger[many:] == plan[usual:]
    assert {film.split for film in larger[:many]} == {"train"}


def test_scenes_are_as_long_as_their_shots(plan, recipe):
    low, high = recipe.scene_frames
    for scene in (scene for film in plan for scene in film.scenes):
        assert sum(shot.num_frames for shot in scene.shots) == scene.num_frames
        assert low <= scene.num_frames <= high


@pytest.mark.parametrize(("version", "most"), [(2, 725), (3, 870)])
@pytest.mark.parametrize("change", [None, 1], ids=["none", "too many"])
def test_an_impossible_size_is_an_error_that_names_the_possible_ones(
    version, most, change, tmp_path
):
    size = most + change if change else 0
    with pytest.raises(ValueError, match=f"data.films is {size}; choose 1 to {most}"):
        demo_corpus(tmp_path, size=size, version=version)
    assert not [*tmp_path.iterdir()]


# What is said.


def test_every_wording_is_used_in_training(plan):
    said = Counter(word for s in clips(plan, "train") for word in s.text.replace(",", "").split())
    for wordings in WORDINGS.values():
        for phrase in (phrase for phrases in wordings.values() for phrase in phrases):
            assert all(said[word] >= 20 for word in phrase.split())


def test_single_words_tell_all_values_apart():
    words = {
        (attribute, value): [set(phrase.split()) for phrase in phrases]
        for attribute, wordings in WORDINGS.items()
        for value, phrases in wordings.items()
    }
    for key, phrases in words.items():
        others = set().union(*(p for k, ps in words.items() if k != key for p in ps))
        assert all(phrase - others for phrase in phrases)


def test_a_sentence_says_all_but_what_is_left_out():
    for seed in range(50):
        text = write_sentence(VALUES, ["colour", "rhythm"], np.random.default_rng(seed))
        for attribute, value in VALUES.items():
            said = any(phrase in text for phrase in WORDINGS[attribute][value])
            assert said == (attribute not in ("colour", "rhythm"))


def test_most_sentences_are_short(plan):
    lengths = [len(s.text.split()) for s in clips(plan, "train")]
    assert np.quantile(lengths, 0.85) <= 17
    assert max(lengths) <= 22


# What is seen and heard.


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("motion", TRACKS)
def test_every_shape_can_move_in_every_way(shape, motion):
    values = VALUES | {"shape": shape, "motion": motion}
    frames = render_pictures(values, 26, np.random.default_rng(1))
    assert frames.shape == (26, HEIGHT, WIDTH, 3)
    assert frames.dtype == np.uint8


@pytest.mark.parametrize("timbre", INSTRUMENTS)
@pytest.mark.parametrize("rhythm", RHYTHMS)
def test_every_instrument_can_play_every_rhythm(timbre, rhythm):
    values = VALUES | {"timbre": timbre, "rhythm": rhythm}
    wave = render_sounds(values, 3 * SAMPLE_RATE, np.random.default_rng(1))
    assert wave.shape == (3 * SAMPLE_RATE,)
    assert 0.1 < np.abs(wave).max() <= 1


def test_what_is_heard_does_not_change_what_is_seen():
    def draw(values):
        return render_pictures(values, 25, np.random.default_rng(3))

    other = {a: values[-1] for a, values in AUDIBLE.items()}
    np.testing.assert_array_equal(draw(VALUES), draw(VALUES | other))


def test_black_scenes_are_black_and_silent_ones_silent(plan):
    for film in plan[:60]:
        for number, scene in enumerate(film.scenes):
            if not scene.has_picture:
                assert not scene_frames(film, number, scene).any()
            if not scene.has_sound:
                assert not scene_wave(film, number, scene).any()
