"""The demo in Gradio; what is behind its parts is tested without Gradio."""

import av
import pytest

from fusion.data.media.window import read_audio, read_frames
from fusion.serve.demo import ANYTHING, EVERY_FILM, Demo, build, cut, launch
from tests.data.media.films import write_film

OPTIONS = (ANYTHING, EVERY_FILM, 5)


@pytest.fixture
def demo(index, tmp_path):
    return Demo(index, tmp_path)


def test_words_find_hits_with_their_reasons(demo):
    pictures, hits, told = demo.ask("a star xyzzy", None, None, None, *OPTIONS)
    assert told.startswith(f"{len(hits)} hits.") and "xyzzy" in told
    assert len(pictures) == len(hits) == 5
    assert pictures[0][0].size == (320, 180)
    assert "seen" in pictures[0][1] and hits[0]["film"]["name"] in pictures[0][1]


def test_a_film_and_a_combination_narrow_the_search(demo):
    name, number = demo.films()[0]
    _, hits, _ = demo.ask("a star", None, None, None, "seen", number, 50)
    assert {hit["film"]["name"] for hit in hits} == {name}
    assert all(hit["score"] == pytest.approx(hit["by"]["video"], abs=1e-5) for hit in hits)


def test_files_and_hits_find_clips(demo, tmp_path):
    sound = str(write_film(tmp_path / "ask.m4a", 1, picture=False))
    _, hits, _ = demo.ask("", sound, None, None, *OPTIONS)
    assert hits
    _, near, _ = demo.near(hits[0], *OPTIONS)
    assert near and hits[0]["id"] not in [hit["id"] for hit in near]


def test_a_question_that_cannot_be_answered_is_told_in_one_line(demo, tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_text("no film")
    for question in (("xyzzy", None, None, None), ("", None, None, str(bad)), ("",) + (None,) * 3):
        pictures, hits, told = demo.ask(*question, *OPTIONS)
        assert (pictures, hits) == ([], []) and told and "\n" not in told


def test_of_a_film_only_the_seconds_of_the_hit_are_given_away(demo, films):
    _, hits, _ = demo.ask("a star", None, None, None, *OPTIONS)
    shown, facts, hit = demo.open(hits, 0)
    with av.open(shown) as container:
        seconds = container.duration / av.time_base
    assert seconds == pytest.approx(hit["end"] - hit["start"], abs=0.15)
    assert str(films) not in facts
    assert demo.open(hits, 99) == (None, "", None)


def test_a_film_that_is_gone_is_told_without_its_folder(demo, films):
    _, hits, _ = demo.ask("a star", None, None, None, *OPTIONS)
    film = demo.service.film_path(hits[0]["film"]["id"])
    film.rename(film.with_suffix(".gone"))
    try:
        shown, facts, _ = demo.open(hits, 0)
    finally:
        film.with_suffix(".gone").rename(film)
    assert shown is None and "cannot be shown" in facts and str(films) not in facts


def test_a_cut_has_the_pictures_and_the_sound_of_its_seconds(tmp_path):
    film = write_film(tmp_path / "film.mp4", 2)
    made = cut(film, 0.5, 1.0, tmp_path / "cut.mp4")
    want, got = (read_frames(*given, 36, 64) for given in ((film, 25), (made, 25)))
    assert len(got) == pytest.approx(13, abs=1)
    assert abs(got[0].astype(float) - want[12]).mean() < 8
    assert len(read_audio(made)) == pytest.approx(8000, abs=1600)


def test_the_demo_answers_over_http(index):
    pytest.importorskip("gradio", reason="no gradio; install it by: pip install 'fusion[demo]'")
    from gradio_client import Client

    blocks = build(index)
    _, url, _ = launch(blocks, prevent_thread_lock=True, quiet=True)
    try:
        assert "127.0.0.1" in url
        gallery, told = Client(url, verbose=False).predict(
            "a star", None, None, None, *OPTIONS, api_name="/search"
        )[:2]
    finally:
        blocks.close()
    assert len(gallery) == 5 and told.startswith("5 hits.")


def test_a_missing_gradio_is_one_line(index, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gradio", None)
    with pytest.raises(ImportError, match=r"pip install 'fusion\[demo\]'"):
        build(index)
