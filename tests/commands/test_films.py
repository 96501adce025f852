"""``fusion train --films FOLDER --captions FILE``: from films to a model that can be asked."""

import dataclasses
import shutil
from pathlib import Path

import pytest

import fusion
from fusion.checkpoint import read_config
from fusion.cli.main import main
from fusion.commands.evaluate import evaluate
from fusion.commands.films import LIGHT, films_config
from fusion.data.features.store import FeatureStore
from fusion.extract.settings import Features
from tests.data.media.films import write_film

SMALL = [
    *(
        "model.token_dim=8",
        "model.embedding_dim=8",
        "model.num_heads=2",
        "text_encoder.name=word2vec",
    ),
    *("model.modalities.audio.encoder.widths=[2,2,2,4,4]", "trainer.epochs=2"),
    *("text_encoder.dim=8", "text_encoder.epochs=1", "evaluation.queries_in_report=1"),
]


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labelled") / "films"  # beside it are no other films
    folder.mkdir()
    for number in range(7):
        write_film(folder / f"{number}.mp4", seconds=1.0 + number / 10)
    rows = [f"{n};0;1,{n};a dog and a cat number {n}" for n in range(7)]
    captions = folder.parent / f"{folder.name}.csv"
    captions.write_text("\n".join(["filename;start_time;end_time;caption", *rows]))
    return folder, captions


def no_weights(self):
    raise ValueError("mobilenet needs its weights: the hub cannot be reached, and pass the file")


def test_one_command_trains_a_model_that_can_be_asked(films, tmp_path, monkeypatch, caplog, capsys):
    monkeypatch.setattr(Features, "build", no_weights)
    captions = Path(shutil.copy(films[1], tmp_path))
    words = ["--films", str(films[0]), "--captions", str(captions), f"output={tmp_path / 'run'}"]
    main(["train", *words, *SMALL])
    assert "needs its weights: the hub cannot be reached; so video features are hand" in caplog.text
    assert "6 training clips: batches of 6, BatchNorm over 6, 2 epochs" in caplog.text
    run = tmp_path / "run"
    config = read_config(run)
    widths = {name: spec.get("dim") for name, spec in config["model"]["modalities"].items()}
    assert widths == {"text": 8, "video": 125, "audio": None}
    assert config["model"]["modalities"]["audio"]["encoder"]["num_frames"] == 192
    assert config["data"]["max_audio_frames"] == 192
    result = evaluate(run, "validation", None)
    assert result["clips"]["total"] == 1
    assert fusion.load(run).encode(str(films[0] / "3.mp4"), combination="va").shape == (8,)
    main(["train", *words, *SMALL, "resume=true"])  # what the data say is no other config
    captions.write_text("\n".join(films[1].read_text().splitlines()[:-2]))
    with pytest.raises(SystemExit):
        main(["train", *words, *SMALL, "resume=true"])
    assert "and cannot go on with" in capsys.readouterr().err


def test_features_are_kept_in_a_store(films, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("FUSION_CACHE", str(tmp_path))
    network = dataclasses.replace(LIGHT, features_2d="resnet10t", random_weights=True)
    config = films_config(*films, "own_videos", ["output=x"], features=network)
    store = FeatureStore(config["data"]["store"])
    assert list(store.videos) == [f"{number}.mp4" for number in range(7)]
    assert store.root() == films[0]
    assert "features of 7 films with resnet10t, kept in" in caplog.text
    assert " s of film in " in caplog.text and "times their speed" in caplog.text
    caplog.clear()
    assert films_config(*films, "own_videos", ["output=x"], features=network) == config
    assert "times their speed" not in caplog.text


def test_a_film_that_was_replaced_is_read_again(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSION_CACHE", str(tmp_path / "cache"))
    network = dataclasses.replace(LIGHT, features_2d="resnet10t", random_weights=True)
    captions = tmp_path / "captions.csv"
    captions.write_text("video,start,end,text\na.mp4,0,1,x\n")
    (tmp_path / "films").mkdir()

    def rows(*films):
        for name, seconds in films:
            write_film(tmp_path / "films" / name, seconds=seconds)
        config = films_config(
            tmp_path / "films", captions, "own_videos", ["output=x"], features=network
        )
        store = FeatureStore(config["data"]["store"])
        return store.location, {name: store.rows(name, "audio") for name in store.videos}

    first, before = rows(("a.mp4", 1.0))
    captions.write_text(captions.read_text() + "b.mp4,0,1,x\n")
    assert rows(("b.mp4", 1.0)) == (first, before | {"b.mp4": before["a.mp4"]})
    second, after = rows(("a.mp4", 2.0))
    assert second != first
    assert after["a.mp4"] > before["a.mp4"] and after["b.mp4"] == before["a.mp4"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--films", "nowhere", "--captions", "c.csv"], "nowhere is no folder; name the folder"),
        (["--films", "."], "--films and --captions belong together"),
        (["output=x"], "no config at"),
        ([], "the following arguments are required: config"),
    ],
)
def test_mistakes_are_one_line(words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", *words])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
