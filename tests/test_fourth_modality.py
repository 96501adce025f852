"""A further field of a store is a modality: by ``model.modalities.depth`` alone."""

import csv
import json

import numpy as np
import pytest
import torch

import fusion
from fusion.commands.compare import compare
from fusion.commands.evaluate import evaluate
from fusion.commands.train import train
from fusion.config import ConfigError, load_config, to_yaml
from fusion.data.features.format import Field
from fusion.data.features.store import FeatureStore
from fusion.data.features.writer import StoreWriter
from fusion.tasks import make_task
from fusion.tokens import Tokens
from tests.data.media.films import write_film

FIELDS = {"2d": Field(6, 1.0), "audio": Field(40, 100.0), "depth": Field(5, 2.0)}
WITHOUT = ("film0", "film1")  # depth
ENCODER = {"name": "davenet", "version": 1, "num_frames": 64, "widths": [2, 2, 2, 4, 4]}
CONFIG = {
    "data": {"name": "videos", "max_audio_frames": 64},
    "text_encoder": {"name": "word2vec", "dim": 3, "epochs": 1},
    "model": {
        "name": "eao",
        "modalities": {
            "text": {"dim": 3},
            "video": {"dim": 6},
            "audio": {"encoder": ENCODER | {"batchnorm_group": 2}},
            "depth": {"dim": 5},
        },
        "combinations": ["t", "v", "a", "d", "vd", "vad"],
        "token_dim": 8,
        "embedding_dim": 8,
        "num_heads": 2,
    },
    "loss": {"name": "combinatorial", "terms": {"t|v": 1, "t|a": 1, "t|d": 1, "t|vad": 1}},
    "trainer": {"epochs": 1, "batch_size": 4, "learning_rate": 0.01},
    "evaluation": {"queries_in_report": 2},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A store of 12 films of 4 s with two captions each, and the config."""
    folder, draw = tmp_path_factory.mktemp("depth"), np.random.default_rng(0)
    with (
        StoreWriter(folder / "store", FIELDS, "own") as writer,
        open(folder / "captions.csv", "w", newline="") as file,
    ):
        rows = csv.writer(file)
        rows.writerow(["video", "start", "end", "text"])
        for number in range(12):
            name = f"film{number}"
            lengths = {"2d": 4, "audio": 400, "depth": 8}
            values = {f: draw.normal(size=(n, FIELDS[f].width)) for f, n in lengths.items()}
            if name in WITHOUT:
                del values["depth"]
            writer.add(name, values, {"networks": {"2d": "own"}})
            rows.writerow([name, 0, 2, f"a red star {number}"])
            rows.writerow([name, 2, 4, f"a blue ring {number}"])
    data = dict.fromkeys(("train", "validation", "test"), str(folder / "captions.csv"))
    config = CONFIG | {"data": CONFIG["data"] | data | {"store": str(folder / "store")}}
    (folder / "depth.yaml").write_text(to_yaml(config | {"output": str(folder / "run")}))
    return folder


@pytest.fixture(scope="module")
def run(folder):
    train(load_config(folder / "depth.yaml"))
    return folder / "run"


def clips_of(folder, *overrides):
    task = make_task(load_config(folder / "depth.yaml", overrides))
    task.open_data()
    task.open_encoders(None)
    return task.clips("test")


def test_a_clip_has_the_rows_of_its_seconds(folder):
    clips = clips_of(folder)
    assert clips[4]["depth"].shape == (5, 5)  # of seconds 0 to 2, and the one that begins at 2
    assert clips[0]["depth"].shape == (0, 5)  # of a film without depth
    cut = clips_of(folder, "data.max_tokens.depth=3")
    torch.testing.assert_close(cut[5]["depth"], clips[5]["depth"][:3])


def test_a_model_without_it_does_not_read_it(folder):
    overrides = ["model.modalities.depth=null", "model.combinations=[t,v,a]"]
    assert "depth" not in clips_of(folder, *overrides, "loss.terms={t|v: 1}")[0]


def test_its_width_may_be_left_to_the_data(folder):
    task = make_task(load_config(folder / "depth.yaml", ["model.modalities.depth.dim=null"]))
    task.open_data()
    task.open_encoders(None)
    assert task.fit(1)["model"]["modalities"]["depth"] == {"dim": 5}


def test_directions_presence_and_report_follow(run):
    result = json.loads((run / "results.json").read_text())
    assert {"t->d", "d->t", "vd->t", "t->vad", "v->d", "t->v+a+d"} <= set(result["directions"])
    assert result["clips"]["missing"] == {"text": 0, "video": 0, "audio": 0, "depth": 4}
    assert result["directions"]["d->v"]["gallery"] == 20
    page = (run / "report.html").read_text()
    assert "text → video and audio and depth" in page
    assert "t, v, a, d: text, video, audio, depth" in page
    assert evaluate(run, None, None)["directions"] == result["directions"]


def test_it_is_encoded(run, folder):
    model, clips = fusion.load(run), clips_of(folder)
    assert model.modalities == ("text", "video", "audio", "depth")
    one = model.encode({"depth": clips[5]["depth"]})
    torch.testing.assert_close(model.encode({"depth": Tokens.pack([clips[5]["depth"]])}, "d"), one)
    both = model.encode({"depth": clips[5]["depth"], "video": clips[5]["video"]}, "vd")
    assert both.shape == (8,) and not torch.allclose(both, one)
    with pytest.raises(ValueError, match="depth cannot be made from a file|does not say how"):
        model.encode({"depth": folder / "captions.csv"})


def test_runs_with_it_are_compared(run, folder):
    train(load_config(folder / "depth.yaml", [f"output={folder}/equal", "loss.temperature=0.5"]))
    compare([str(run), str(folder / "equal")], folder / "out", None)
    assert "t → d" in (folder / "out/comparison.html").read_text()


def test_a_field_may_be_in_a_store_of_its_own(folder, tmp_path):
    both = FeatureStore(folder / "store")
    for name, fields in (("films", ("2d", "audio")), ("depth", ("depth",))):
        with StoreWriter(tmp_path / name, {f: FIELDS[f] for f in fields}, "own") as writer:
            for video in both.videos:
                if name == "films" or video not in WITHOUT:
                    writer.add(video, {f: both.read(video, f) for f in fields})
    place = f"data.fields.depth={tmp_path}/depth"
    for one, other in zip(
        clips_of(folder), clips_of(folder, f"data.store={tmp_path}/films", place), strict=True
    ):
        assert one.keys() == other.keys()
        assert all(one[m].equal(other[m]) for m in ("video", "audio", "depth"))
    with pytest.raises(ValueError, match="data.fields.heat: .*has no such field, but depth"):
        clips_of(folder, f"data.fields.heat={tmp_path}/depth")


def test_features_made_by_fusion_and_a_further_store_are_joined(run, folder, tmp_path):
    """The recipe of the films stays, so that they are still made of files."""
    film = write_film(tmp_path / "a.mp4", 2)
    with StoreWriter(tmp_path / "depth", {"depth": FIELDS["depth"]}, "own") as writer:
        writer.add("a.mp4", {"depth": np.ones((4, 5))})
    (tmp_path / "c.csv").write_text("video,start,end,text\na.mp4,0,1,a star\na.mp4,1,2,a ring\n")
    changes = {split: str(tmp_path / "c.csv") for split in ("train", "validation", "test")}
    changes |= {"fields.depth": f"{tmp_path}/depth", "store": "null"}
    config = load_config(
        folder / "depth.yaml",
        [f"data.{key}={value}" for key, value in changes.items()]
        + ["model.modalities.video.dim=125", f"output={tmp_path}/run", "trainer.batch_size=2"],
    )
    train(config)
    model = fusion.load(tmp_path / "run")
    assert model.recipe["features"]["depth"] is None
    assert model.encode({"video": film, "depth": torch.ones(3, 5)}, "vd", end=1.0).shape == (8,)
    with pytest.raises(ValueError, match="depth cannot be made from a file"):
        model.encode({"depth": film})


def test_a_field_that_the_store_lacks_is_explained(folder):
    with pytest.raises(ConfigError, match="the data has no modality 'heat' of model.modalities"):
        clips_of(folder, "model.modalities.heat.dim=3")
