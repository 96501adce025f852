"""Places of version 3 can be told apart by what is seen, and by what is heard."""

import numpy as np
import pytest

from fusion.data.demo.cutaways import PLACES
from fusion.data.demo.film import scene_frames, scene_wave
from fusion.data.demo.pictures import HEIGHT, render_pictures
from fusion.data.demo.plan import NUM_COMBINATIONS, combination
from fusion.data.demo.sounds import SAMPLE_RATE, render_sounds
from fusion.data.demo.versions import plan_corpus

CLIPS = [
    (place, combination(int(number)), np.random.default_rng(int(number)))
    for place in PLACES
    for number in np.random.default_rng(0).integers(NUM_COMBINATIONS, size=20)
]


def looks(frames):
    """The sky is lighter than the ground, and the floor lighter than the wall."""
    third = HEIGHT // 3
    above, below = frames[:, :third].mean(), frames[:, -third:].mean()
    return "outdoors" if above > below else "indoors"


def sounds(wave):
    """Wind has the energy of its noise at the top, a machine at the bottom."""
    energy = np.abs(np.fft.rfft(wave)) ** 2
    hertz = np.fft.rfftfreq(len(wave), 1 / SAMPLE_RATE)
    return "outdoors" if energy[hertz > 6000].sum() > energy[hertz < 200].sum() else "indoors"


def test_light_above_dark_is_outdoors():
    found = [looks(render_pictures(values, 5, rng, place)) for place, values, rng in CLIPS]
    assert found == [place for place, *_ in CLIPS]


def test_a_hiss_is_outdoors_and_a_rumble_indoors():
    waves = [render_sounds(values, 2 * SAMPLE_RATE, rng, place) for place, values, rng in CLIPS]
    found = [sounds(wave) for wave in waves]
    assert found == [place for place, *_ in CLIPS]


def test_scenes_show_their_shots_in_turn_and_sound_like_the_place_of_one():
    film = plan_corpus(1, 3)[0]
    for number, scene in enumerate(film.scenes):
        frames, wave = scene_frames(film, number, scene), scene_wave(film, number, scene)
        assert len(frames) == scene.num_frames
        assert len(wave) == scene.num_frames * SAMPLE_RATE // 10
        start = 0
        for shot in scene.shots if scene.has_picture else ():
            assert looks(frames[start : start + shot.num_frames]) == shot.place
            start += shot.num_frames
        assert not scene.has_sound or sounds(wave) == scene.place


@pytest.mark.parametrize(("render", "length"), [(render_pictures, 3), (render_sounds, SAMPLE_RATE)])
def test_a_place_changes_what_is_rendered(render, length):
    places = ("", *PLACES)
    made = [render(combination(0), length, np.random.default_rng(0), place) for place in places]
    assert not np.array_equal(made[0], made[1]) and not np.array_equal(made[1], made[2])


def test_sounds_of_places_never_leave_the_scale():
    for place, values, rng in CLIPS:
        assert np.abs(render_sounds(values, SAMPLE_RATE, rng, place)).max() <= 1
