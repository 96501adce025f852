"""A model trained from frames, used on own films: the frames are those of its evaluation."""

from collections import Counter

import numpy as np
import pytest
import torch

import fusion
from fusion.checkpoint import CheckpointError
from fusion.cli.main import main
from fusion.commands.train import train
from fusion.config import load_config
from fusion.data.datasets.dataset import collate
from fusion.data.features import computed
from fusion.data.media.decode import MediaError
from fusion.inference.embedder import whole_film
from fusion.inference.features import FilmFeatures
from fusion.inference.frames import FilmFrames
from fusion.inference.localising import Localiser
from fusion.serve.questions import Media
from fusion.serve.schemas import Refused
from fusion.tasks import make_task
from tests.data.media.films import write_film
from tests.tiny import CONFIG, write_config

NETWORK = {"block": "basic", "layers": [1, 1, 1, 1], "widths": [4, 4, 8, 8]}
FRAMES = {"frames": 3, "frame_size": [24, 32]}
RECIPE = {"extractor": "descriptors", "version": "1", "log_mel": 1}


def train_frames(folder):
    encoder = {"name": "tsm", "network": NETWORK, "batchnorm_group": 2}
    modalities = CONFIG["model"]["modalities"] | {"video": {"encoder": encoder}}
    changes = {"model": {"modalities": modalities}, "data": {"raw_video": FRAMES}}
    train(load_config(write_config(folder, trainer={"epochs": 1}, **changes)))


@pytest.fixture(scope="module")
def run(once):
    return once("frames", train_frames) / "run"


@pytest.fixture(scope="module")
def model(run):
    return fusion.load(run)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    write_film(folder / "a.mp4", 2)
    write_film(folder / "silent.mp4", 1.5, sound=False)
    return folder


@pytest.fixture
def no_descriptors(monkeypatch):
    """Features that the frames stand for need not be computed."""

    def fail(*_):
        raise AssertionError("descriptors are computed")

    monkeypatch.setattr(computed, "compute_features", fail)
    monkeypatch.setattr(computed, "compute_elsewhere", fail)


def test_clips_of_films_are_embedded_as_in_evaluation(run, model, no_descriptors):
    task = make_task(load_config(run / "config.yaml"))
    task.open_encoders(run / "best")
    task.open_data()
    clips = task.clips("test")
    heard = [number for number in range(len(clips)) if len(clips[number]["audio"])]
    for number in (heard[0], heard[-1]):
        caption = clips.captions[number]
        item = collate([clips[number]]).to("cpu")
        assert item.inputs["video"].lengths.tolist() == [3]
        for combination in ("v", "a", "va"):
            with torch.no_grad():
                expected = model.finish(model.network(item.inputs, [combination])[combination])[0]
            path = clips.folder / caption.video
            found = model.encode(path, combination, start=caption.start, end=caption.end)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_films_are_indexed_and_found(run, films, tmp_path, capsys, no_descriptors):
    out = tmp_path / "films.index"
    main(["index", str(films), "--out", str(out), "--model", str(run), "--windows", "0.5"])
    assert "2 films" in capsys.readouterr().out
    main(["search", str(out), "--video", str(films / "silent.mp4"), "--json", "--top", "20"])
    index = fusion.Index(out)
    hits = index.search(films / "silent.mp4", k=20, within=["v"])
    counts = Counter(hit.name for hit in hits)
    assert {*counts} == {"a.mp4", "silent.mp4"} and counts["silent.mp4"] == 6
    assert "video" in hits[0].by and len(index.search("a red star", k=3)) == 3


def test_a_film_of_sound_alone_and_times_beyond_the_picture_have_no_frames(model, films, tmp_path):
    write_film(tmp_path / "sound.mp4", 1, picture=False)
    maker = model.maker
    sound = whole_film(model, tmp_path / "sound.mp4")
    assert len(maker.clip(sound, 0.0, 0.5)["video"]) == 0
    assert maker.seconds(sound) > 0.5
    silent = whole_film(model, films / "silent.mp4")
    assert maker.seconds(silent) == 38 / 25
    clip = maker.clip(silent, 0.5, float("inf"))
    assert clip["video"].shape == (3, 3, 24, 32) and len(clip["audio"]) == 0
    assert len(maker.clip(silent, 1.52, 2.0)["video"]) == 0
    frames = np.full((4, 48, 64, 3), 200, np.uint8)
    assert model.encode({"video": (frames, 8.0)}, "v").shape == (8,)
    (tmp_path / "broken.mp4").write_bytes(b"no film")
    with pytest.raises(MediaError, match="broken.mp4: no media file"):
        maker.clip(whole_film(model, tmp_path / "broken.mp4"), 0.0, 1.0)


def test_the_sound_is_that_of_the_features(films):
    whole = FilmFeatures(RECIPE).rows(films / "a.mp4")
    heard = FilmFeatures(RECIPE | {"raw_video": FRAMES | {"version": 2}}).rows(films / "a.mp4")
    assert {*heard} == {"audio"}
    # Sound is read in pieces, which end elsewhere: float16 may round to the next number.
    torch.testing.assert_close(heard["audio"], whole["audio"], rtol=2**-10, atol=0)


def test_frames_beside_features_leave_those_as_they_are(films):
    raw = FRAMES | {"version": 2, "modality": "frames"}
    features = FilmFeatures(RECIPE | {"raw_video": raw})
    assert {*features.fields} == {"2d", "3d", "audio"} and features.frames.modality == "frames"
    assert len(features.rows(films / "a.mp4")["2d"])


def test_frames_of_another_version_are_refused():
    with pytest.raises(CheckpointError, match="frames that version 1 of the reader chose, and"):
        FilmFrames(FRAMES | {"version": 1})


def test_steps_are_found(model, films):
    found = Localiser(model, ["a red star", "a bell"], "t->v", window=0.5, step=0.5)
    seconds = [*found.stream(films / "silent.mp4")]
    assert len(seconds) == 3 and all(np.isfinite(s.scores).all() for s in seconds)


def test_an_upload_is_refused_in_words(model, films):
    media = Media(model, None)
    with (
        pytest.raises(Refused, match="trained from frames of films, which are not read from"),
        media.read("", {"video": films / "a.mp4"}, 0.0, None),
    ):
        pass
