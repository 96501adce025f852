"""``fusion index`` and ``fusion search``, and an index that names its model."""

import json
import os
from pathlib import Path

import pytest

import fusion
from fusion.cli.main import main
from fusion.commands.search import format_hits
from fusion.search.index import Index, lasting
from fusion.search.records import Hit
from fusion.search.storage import Storage
from tests.search.conftest import train_tiny
from tests.search.test_index import content
from tests.tiny import CONFIG


def search(capsys, *words):
    capsys.readouterr()
    main(["search", *map(str, words), "--json"])
    return json.loads(capsys.readouterr().out)


def fails(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        main([*map(str, words)])
    assert stop.value.code == 2
    return capsys.readouterr().err


def fact(folder, key):
    storage = Storage(folder)
    found = storage.fact(key)
    storage.close()
    return found


def test_an_index_is_made_and_searched_from_another_folder(
    run, films, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(run.parent)
    main(["index", str(films), "--out", str(tmp_path / "i"), "--model", "run"])
    assert "3 films" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    assert len(search(capsys, "i", "a red star", "--top", 2)) == 2
    near = search(capsys, "i", "--near", 1, "--film", "silent", "--in", "v")
    assert near and {hit["video"] for hit in near} == {str(films / "silent.mp4")}
    assert "has no combination 'tva'" in fails(capsys, "search", "i", "--near", "1", "--in", "tva")


def test_a_refused_model_leaves_an_index_as_it_was(run, films, tmp_path, capsys):
    Index(tmp_path / "i", run).add(films)
    other = train_tiny(tmp_path, seed=1)
    before = content(tmp_path / "i"), fact(tmp_path / "i", "model_path")
    said = fails(capsys, "index", films, "--out", tmp_path / "i", "--model", other)
    assert "was made with another model" in said
    assert (content(tmp_path / "i"), fact(tmp_path / "i", "model_path")) == before
    assert search(capsys, tmp_path / "i", "a red star")


def test_an_index_takes_the_place_of_a_model(run, films, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(run.parent)
    assert Index(tmp_path / "i", "run").add(films).search("a red star", k=1)
    assert fact(tmp_path / "i", "model_path") == str(run)
    assert search(capsys, tmp_path / "i", "a red star")


def test_an_index_of_a_model_in_memory_asks_for_its_place(model, run, films, tmp_path, capsys):
    Index(tmp_path / "i", model).add(films)
    said = fails(capsys, "search", tmp_path / "i", "a red star")
    assert "does not say where its model is; name it: --model RUN" in said
    assert search(capsys, tmp_path / "i", "a red star", "--model", run)


def test_a_model_of_the_hub_keeps_its_name(run, films, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    real = fusion.load

    def load(name, *given, **options):
        return real(run if name == "me/model" else name, *given, **options)

    monkeypatch.setattr(fusion, "load", load)
    main(["index", str(films), "--out", "i", "--model", "me/model"])
    assert fact("i", "model_path") == "me/model"
    assert search(capsys, "i", "a red star")
    assert lasting("~") == os.path.expanduser("~") and lasting(Path("i")) == str(tmp_path / "i")


def test_own_parts_need_trust(films, tmp_path, capsys):
    modalities = CONFIG["model"]["modalities"] | {"text": {"dim": 6}}
    own = train_tiny(
        tmp_path, text_encoder={"name": "tests.own:Words"}, model__modalities=modalities
    )
    words = ["index", films, "--out", tmp_path / "i", "--model", own]
    assert "if you trust this code, say so" in fails(capsys, *words)
    main([*map(str, words), "--trust"])
    assert "if you trust this code" in fails(capsys, "search", tmp_path / "i", "red star")
    assert search(capsys, tmp_path / "i", "red star", "--trust")


def test_without_a_model_a_line_says_what_to_run(films, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = fails(capsys, "index", films, "--out", "i")
    assert "train one in minutes by: fusion train eao" in said and "--model clip:FOLDER" in said
    assert not (tmp_path / "i").exists()


def test_what_cannot_be_asked_or_found_is_one_line(run, films, tmp_path, capsys):
    (films / "broken.mp4").write_bytes(b"no film")
    i = tmp_path / "i"
    main(["index", str(films), "--out", str(i), "--model", str(run)])
    assert "1 unreadable" in capsys.readouterr().out
    main(["index", str(films), "--out", str(i)])  # it is not tried again, but still counted
    assert "1 unreadable" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["search", str(i), "a red star", "--near", "1"])
    assert "--near ID is a question of its own" in capsys.readouterr().err
    said = fails(capsys, "search", i, "a red star", "--in", "a", "--film", "silent")
    assert "silent.mp4 has no clip with what --in a; leave out --film or --in" in said
    assert "no film of" in fails(capsys, "search", i, "a red star", "--film", "nowhere")
    part = fails(capsys, "search", i, "--video", f"{films / 'a.mp4'}@x-y")
    assert "a part of a file is FILE@12-19 or FILE@0:12-0:19" in part
    plain, clock = (
        search(capsys, i, "--video", f"{films / 'a.mp4'}@{time}", "--in", "v")
        for time in ("0.5-1", "0:00.5-0:01")
    )
    assert plain == clock and plain[0]["name"] == "a.mp4"
    unreadable = next(film.id for film in Index(i).films() if film.problem)
    with pytest.raises(ValueError, match=f"has no film {unreadable}"):
        Index(i).film_path(unreadable)  # so no server sends it


def test_an_index_without_any_clip_is_an_error(run, tmp_path, capsys):
    (tmp_path / "broken.mp4").write_bytes(b"no film")
    said = fails(capsys, "index", tmp_path / "broken.mp4", "--out", tmp_path / "i", "--model", run)
    assert "has no clip; name films that can be read" in said
    assert "has no clip that can be compared" in fails(capsys, "search", tmp_path / "i", "red star")


def test_captions_cannot_write_on_the_terminal():
    hit = Hit("/f/a.mp4", 0, 1, 0.5, {}, "a\x1b[2J\nb", 1, 0.1, 1, "a\x07.mp4")
    assert format_hits([hit], ["text"]).count("\n") == 0
    assert format_hits([hit], ["text"]).isprintable()
