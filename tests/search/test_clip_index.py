"""Films are indexed and searched by a pre-trained model of picture and text."""

import json
from pathlib import Path

import numpy as np
import pytest

import fusion
from fusion.cli.main import main
from fusion.search.storage import SearchError, Storage
from tests.data.media.films import write_film
from tests.inference.tiny_clip import write_model
from tests.search.test_index import content


@pytest.fixture(scope="module")
def name(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("clip") / "model")


def test_films_are_searched_without_training(name, films, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(Path(name.removeprefix("clip:")).parent)
    main(["index", str(films), "--out", str(tmp_path / "i"), "--model", "clip:model"])
    assert "3 films" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)  # the index knows where its model is
    main(["search", "i", "a red star", "--top", "2", "--json"])
    hits = json.loads(capsys.readouterr().out)
    assert len(hits) == 2 and all(set(hit["by"]) <= {"text", "video"} for hit in hits)
    main(["search", "i", "--video", str(films / "a.mp4@0-1"), "--json"])
    assert json.loads(capsys.readouterr().out)[0]["score"] == pytest.approx(1, abs=1e-4)
    main(["search", "i", "--near", str(hits[0]["id"]), "--in", "v"])
    assert "seen" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["search", "i", "--audio", str(films / "a.mp4")])
    assert "'audio', which the model does not embed" in capsys.readouterr().err


def test_vectors_are_those_of_encode(name, films, tmp_path):
    model = fusion.load(name)
    fusion.Index(tmp_path / "i", model).add(films, quiet=True)
    storage = Storage(tmp_path / "i")
    ids, rows, names, has = storage.table()
    for number, row, film in zip(ids.tolist(), rows.tolist(), names, strict=True):
        _, clip = storage.clip(number)
        given = model.encode(films / film, start=clip.start, end=clip.end)
        np.testing.assert_allclose(storage.vectors("v")[row], given, atol=1e-6)
        said = model.encode(clip.text).numpy() if clip.text else np.zeros(12)
        np.testing.assert_allclose(storage.vectors("t")[row], said, atol=1e-6)
    assert set(has) == {"v", "tv"} and storage.fact("combinations") == ["t", "v"]
    storage.close()


def test_a_film_without_picture_is_named(name, films, tmp_path, capsys):
    write_film(films / "sound.mp4", 1, picture=False)
    fusion.Index(tmp_path / "i", name).add(films)
    assert "sound.mp4: " in capsys.readouterr().err
    known, clips = content(tmp_path / "i")
    assert "no picture" in known["sound.mp4"].problem
    assert "sound.mp4" not in {film for film, *_ in clips}


def test_another_model_is_refused(name, films, tmp_path):
    fusion.Index(tmp_path / "i", name).add(films, quiet=True)
    with pytest.raises(SearchError, match="was made with another model"):
        fusion.Index(tmp_path / "i", write_model(tmp_path / "other", seed=1))
