"""Sound that is silent throughout is named; quiet sound is not."""

import numpy as np
import pytest

from fusion.data.features.computed import ComputedFeatures
from fusion.data.media.encode import write_clip
from fusion.data.media.film import SILENT, Film
from tests.data.media.films import write_film


def write(path, samples):
    frames = [np.full((36, 64, 3), 90, np.uint8)] * 10
    write_clip(path, frames, 10, np.asarray(samples, np.float32))


@pytest.mark.parametrize(("loudness", "silent"), [(0.0, True), (0.01, False)])
def test_a_film_whose_sound_is_silent_says_so(tmp_path, loudness, silent):
    write(tmp_path / "a.mp4", loudness * np.sin(np.arange(16_000) / 5))
    film = Film(tmp_path / "a.mp4", {}, audio=True)
    assert sum(piece.data.size for piece in film.pieces())
    assert (SILENT in film.problems) is silent


def test_a_film_without_sound_is_not_silent(tmp_path):
    write_film(tmp_path / "a.mp4", 1, sound=False)
    film = Film(tmp_path / "a.mp4", {}, audio=True)
    with pytest.raises(ValueError, match="no sound"):
        list(film.pieces())
    assert SILENT not in film.problems


def test_own_films_with_silent_sound_are_counted_and_named(tmp_path, caplog):
    write(tmp_path / "quiet.mp4", np.zeros(16_000))
    write(tmp_path / "loud.mp4", np.sin(np.arange(16_000) / 5))
    ComputedFeatures(tmp_path, ["quiet.mp4", "loud.mp4"], "descriptors").report(0.05, set())
    assert "the sound of 1 film is silent (quiet.mp4)" in caplog.text
