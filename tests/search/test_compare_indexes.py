"""``fusion compare`` of indexes: the same captions asked of several models."""

import json

import pytest

import fusion
from fusion.cli.main import main
from fusion.commands.compare import compare
from fusion.search.storage import SearchError
from tests.data.media.films import write_film
from tests.inference.tiny_clip import write_model

ROWS = "start,end,text\n0,0.5,a red star\n0.5,1,a star\n1,1.5,a blue bell\n"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("clip") / "model")


@pytest.fixture
def known(films):
    """The films, all but one with captions."""
    (films / "a.csv").write_text(ROWS)
    (films / "silent.csv").write_text(ROWS.replace("red", "green"))
    return films


@pytest.fixture
def quiet(monkeypatch):
    monkeypatch.setattr("fusion.commands.compare.comparison_picture", lambda comparison: "<svg/>")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """What should be refused and is not writes into an empty folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def pair(run, clip, known, tmp_path):
    fusion.Index(tmp_path / "eao.index", run).add(known, quiet=True)
    fusion.Index(tmp_path / "clip.index", clip).add(known, quiet=True)
    return [str(tmp_path / "eao.index"), str(tmp_path / "clip.index")]


def test_two_models_are_compared_on_the_same_captions(pair, tmp_path, capsys):
    main(["compare", *pair, "--out", str(tmp_path / "out")])
    printed = capsys.readouterr()
    assert "the caption's own clip is right" in printed.out and "warning" not in printed.err
    comparison = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert list(comparison["methods"]) == ["eao.index", "clip.index"]
    eao, other = (m["directions"] for m in comparison["methods"].values())
    assert set(eao) == {"t->largest", "t->v", "t->a", "t->va", "t->v+a"}
    assert set(other) == {"t->largest", "t->v"}
    assert {row["queries"] for row in eao.values()} == {8} == {other["t->v"]["queries"]}
    assert {row["gallery"] for row in eao.values()} == {8} == {other["t->v"]["gallery"]}
    assert len(other["t->v"]["difference"]["interval"]) == 2
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert "as fusion search compares" in page and "GFLOP" not in page + printed.out
    assert "<svg" in (tmp_path / "out" / "comparison.svg").read_text()


def test_an_index_alone_is_measured(pair, tmp_path, quiet):
    comparison = compare(pair[:1], tmp_path / "out")
    (method,) = comparison["methods"].values()
    assert "difference" not in method["directions"]["t->v"]


def test_a_film_that_one_model_cannot_see_counts_as_missed(run, clip, known, tmp_path, quiet):
    write_film(known / "sound.mp4", 2, picture=False)
    (known / "sound.csv").write_text(ROWS)
    fusion.Index(tmp_path / "eao", run).add(known, quiet=True)
    fusion.Index(tmp_path / "clip", clip).add(known, quiet=True)
    comparison = compare([str(tmp_path / "eao"), str(tmp_path / "clip")], tmp_path / "o")
    assert comparison["clips"] == {"total": 11, "captions": 11}
    rows = [method["directions"]["t->v"] for method in comparison["methods"].values()]
    assert [(row["queries"], row["gallery"]) for row in rows] == [(11, 11)] * 2


def test_windows_that_do_not_know_the_times(run, films, tmp_path, quiet, capsys):
    (films / "more" / "c.csv").unlink()
    for name, windows in (("half.index", 0.5), ("short.index", 0.3)):
        index = fusion.Index(tmp_path / name, run)
        index.add(films, quiet=True, windows=windows)
    (tmp_path / "known.csv").write_text(
        "video,start,end,text\na.mp4,0,0.5,a red star\nc.mp4,1,1.5,a star\nc.mp4,0,1,zyx\n"
    )
    places = [str(tmp_path / name) for name in ("half.index", "short.index")]
    known = str(tmp_path / "known.csv")
    comparison = compare(places, tmp_path / "o", captions=known)
    for method in comparison["methods"].values():
        rows = method["directions"]
        assert {row["queries"] for row in rows.values()} == {3}  # an unknown word is a miss
        assert {"t->largest IoU>=0.5", "t->va centre"} <= set(rows)
        assert all(row["R@10"] <= 67 for row in rows.values())
    assert "numbers of candidates differ" in capsys.readouterr().err


def fails(match, *words):
    with pytest.raises(ValueError, match=match) as error:
        compare([*map(str, words)], "nowhere")
    assert "\n" not in str(error.value)


def test_other_films_are_refused(pair, run, known, tmp_path):
    write_film(known / "new.mp4", 1)
    fusion.Index(tmp_path / "more", run).add(known, quiet=True)
    fails(
        "only .*more has 1 film, such as new.mp4; index the same films", pair[0], tmp_path / "more"
    )
    fails(
        "only .*more has 1 film, such as new.mp4; index the same films", tmp_path / "more", pair[0]
    )


def test_films_cut_differently_are_refused(pair, run, known, tmp_path):
    (known / "a.csv").write_text(ROWS.replace("1,1.5", "1.1,1.5"))
    fusion.Index(tmp_path / "other", run).add(known, quiet=True)
    fails(
        "cut differently, only .* has the caption of a.mp4 at 1 s; index both with the same",
        pair[0],
        tmp_path / "other",
    )


def test_what_cannot_be_compared_is_one_line(pair, run, tmp_path, films):
    fails("is an index of films and .*run is none; compare indexes with indexes", pair[0], run)
    fails("given twice", pair[0], pair[0])
    with pytest.raises(ValueError, match="--captions is for indexes, and .*run is none"):
        compare([str(run), str(run)], "nowhere", captions="x.csv")
    with pytest.raises(ValueError, match=r"x\.csv"):
        compare(pair, "nowhere", captions=str(tmp_path / "x.csv"))


def test_an_index_without_captions_is_one_line(run, films, tmp_path):
    fusion.Index(tmp_path / "i", run).add(films / "a.mp4", quiet=True)
    with pytest.raises(SearchError, match=r"/i: no clip has a caption that the model reads; give"):
        compare([str(tmp_path / "i")], "nowhere")
