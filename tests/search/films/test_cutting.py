"""Where films are cut: at scene changes, with texts of captions, and what is remembered."""

import builtins
import sys

import av
import numpy as np
import pytest

from fusion.data.captions.table import Caption
from fusion.data.media.encode import write_clip
from fusion.search.films import cutting, thumbnails
from fusion.search.films.cutting import Cut, cut_film, join_short
from fusion.search.films.scenes import find_scenes
from fusion.search.films.thumbnails import make_thumbnails
from tests.data.media.films import write_film
from tests.search.test_index import content, index

COLOURS = [(200, 30, 30), (225, 235, 230), (25, 20, 60), (220, 220, 30), (20, 20, 20)]


def write_scenes(path, cuts, seconds, fps=25, size=(72, 128)):
    """A film whose picture changes colour at some seconds; noise moves in it all the time."""
    rng = np.random.default_rng(0)

    def pictures():
        for frame in range(round(seconds * fps)):
            scene = sum(cut <= frame / fps + 1e-6 for cut in cuts)
            picture = np.full((*size, 3), COLOURS[scene % len(COLOURS)], np.int16)
            yield np.clip(picture + rng.integers(-20, 20, picture.shape), 0, 255).astype("u1")

    wave = rng.uniform(-0.3, 0.3, round(seconds * 16_000)).astype("f4")
    write_clip(path, pictures(), fps, wave)
    return path


@pytest.mark.parametrize("fps", [25, 30, 12.5])
def test_hard_cuts_are_found_where_they_are(tmp_path, fps):
    pytest.importorskip("scenedetect")
    cuts = [1.2, 2.0, 4.4]
    film = write_scenes(tmp_path / "a.mp4", cuts, 6, fps)
    assert find_scenes(film) == pytest.approx(cuts, abs=max(0.04, 1 / fps))


def test_a_film_without_a_picture_has_no_cuts(tmp_path):
    pytest.importorskip("scenedetect")
    assert find_scenes(write_film(tmp_path / "a.mp4", picture=False)) == []


@pytest.mark.parametrize(
    ("cuts", "expected"),
    [
        ([], [(0, 10)]),
        ([4, 7], [(0, 4), (4, 7), (7, 10)]),
        ([0.5, 4], [(0, 4), (4, 10)]),  # the first is part of the next
        ([4, 4.3, 4.6], [(0, 4), (4, 10)]),  # a flash
        ([4, 9.5], [(0, 4), (4, 10)]),  # the last is part of the one before
        ([4, 10, 11], [(0, 4), (4, 10)]),
        ([k / 10 for k in range(1, 100)], [(k, k + 1) for k in range(10)]),
    ],
)
def test_short_scenes_become_part_of_others(cuts, expected):
    found = join_short(cuts, 10, 1.0)
    assert [value for scene in found for value in scene] == pytest.approx(
        [value for scene in expected for value in scene]
    )


def test_scenes_are_cut_into_windows_that_do_not_cross_them(model, tmp_path):
    pytest.importorskip("scenedetect")
    (tmp_path / "films").mkdir()
    write_scenes(tmp_path / "films" / "a.mp4", [1.2, 2.0], 3)
    assert index(tmp_path / "i", model, tmp_path / "films", cut="scenes")["new"] == 1
    times = [(c.start, c.end) for _, c, _ in content(tmp_path / "i")[1]]
    assert len(times) > 3
    for cut in (1.2, 2.0):
        assert any(start == pytest.approx(cut) for start, _ in times)
        assert not any(start < cut - 0.05 and end > cut + 0.05 for start, end in times)
    assert all(end - start <= model.longest + 1e-9 for start, end in times)


SAID = [Caption("a", 0, 2, "one"), Caption("a", 2, 2.5, "two"), Caption("a", 9, 30, "never")]


def test_windows_have_the_texts_that_are_said_in_them(tmp_path):
    cut = Cut("windows", 2.0, 1.0)
    made = cut_film(tmp_path, SAID, 4.0, cut)
    assert made == [(0, 2, "one"), (1, 3, "one two"), (2, 4, "two")]
    assert cut_film(tmp_path, SAID, 4.0, Cut("captions", 2.0, 1.0)) == [
        (0, 2, "one"),
        (2, 2.5, "two"),
    ]
    assert cut_film(tmp_path, SAID[2:], 4.0, Cut("captions", 2.0, 2.0)) == [(0, 2, ""), (2, 4, "")]
    assert cut_film(tmp_path, SAID, 0.0, cut) == []


def test_captions_after_the_end_of_a_film_are_counted(model, films, tmp_path):
    (films / "more" / "c.csv").write_text("start,end,text\n0,0.5,a star\n60,61,a star\n")
    assert index(tmp_path / "i", model, films)["late"] == 1


def test_options_that_are_left_out_are_those_of_the_last_time(model, films, tmp_path):
    index(tmp_path / "i", model, films, cut="windows", windows=0.5, step=0.5)
    assert index(tmp_path / "i", model, films)["same"] == 3
    assert index(tmp_path / "i", model, films, cut="captions")["changed"] == 1  # the captioned one
    assert index(tmp_path / "i", model, films, windows=0.4)["changed"] == 2
    assert {c.end - c.start for n, c, _ in content(tmp_path / "i")[1] if n == "more/c.mp4"} == {0.5}


def test_scenes_without_the_package_are_one_line(model, films, tmp_path, monkeypatch):
    monkeypatch.setattr(cutting.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"install it by: pip install 'fusion\[scenes\]'"):
        index(tmp_path / "i", model, films, cut="scenes")
    with pytest.raises(ValueError, match="films are cut at captions, scenes, windows; got 'shots'"):
        index(tmp_path / "i", model, films, cut="shots")


def test_nothing_of_the_package_is_loaded_for_windows(model, films, tmp_path, monkeypatch):
    real = builtins.__import__

    def refuse(name, *arguments, **options):
        assert not name.startswith("scenedetect")
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.delitem(sys.modules, "scenedetect", raising=False)
    assert index(tmp_path / "i", model, films)["new"] == 3


def colour(jpeg):
    decoder = av.CodecContext.create("mjpeg", "r")
    decoder.thread_count = 1
    return decoder.decode(av.Packet(jpeg))[0].to_ndarray(format="rgb24")


def test_thumbnails_are_of_their_seconds_and_upright(tmp_path):
    film = write_scenes(tmp_path / "a.mp4", [2, 4], 6, size=(360, 180))
    made = make_thumbnails(film, [5.0, 1.0, 3.0, 5.9, 50.0])
    assert made[4] is None
    for jpeg, scene in zip(made, (2, 0, 1, 2), strict=False):
        picture = colour(jpeg)
        assert picture.shape == (360, 180, 3)
        assert np.abs(picture.reshape(-1, 3).mean(0) - COLOURS[scene]).max() < 12


def test_thumbnails_far_apart_are_those_of_one_pass(tmp_path, monkeypatch):
    film = write_scenes(tmp_path / "a.mp4", [2, 4], 6)
    whole = make_thumbnails(film, [0.5, 3.0, 5.5])
    monkeypatch.setattr(thumbnails, "_FAR", 0.1)
    apart = make_thumbnails(film, [0.5, 3.0, 5.5])
    for one, other in zip(whole, apart, strict=True):
        assert np.abs(colour(one).astype(int) - colour(other)).mean() < 8


def test_a_film_without_a_picture_has_no_thumbnails(tmp_path):
    film = write_film(tmp_path / "a.mp4", picture=False)
    assert make_thumbnails(film, [0.5, 1.0]) == [None, None]
