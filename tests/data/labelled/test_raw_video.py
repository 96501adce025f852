"""Frames of films as a modality: which they are, and how a config asks for them."""

import shutil

import numpy as np
import pytest
import torch

from fusion.builders import check_config
from fusion.config import ConfigError, load_config
from fusion.convert import convert_checkpoint
from fusion.data.captions.table import Caption
from fusion.data.datasets.dataset import ClipSet, FirstClips, collate
from fusion.data.datasets.dropping import DroppedModalities
from fusion.data.labelled.frame_sampling import uniform_test
from fusion.data.labelled.raw_video import RawVideo, WithFrames
from fusion.data.media.shown import Size, read_shown
from fusion.tasks import make_task
from fusion.tasks.retrieval.task import Retrieval
from tests.convert import test_tsm as published
from tests.data.media.films import write_film
from tests.tiny import CONFIG, write_config

SETTINGS = RawVideo(frames=4, frame_size=[12, 16], max_bad=0.5)
WINDOWS = [("a.mp4", 0.0, 1.0), ("a.mp4", 1.0, 2.0), ("broken.mp4", 0.0, 1.0), ("a.mp4", 0, 2)]


class Captioned(ClipSet):
    """Clips of films without features of their own."""

    def __init__(self, folder):
        self.folder = folder
        self.captions = [Caption(video, start, end, "") for video, start, end in WINDOWS]

    def __getitem__(self, index):
        return {"id": str(index), "text": torch.ones(1, 2), "video": torch.ones(2, 5)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("films")
    write_film(path / "a.mp4", seconds=2, sound=False)
    (path / "broken.mp4").write_bytes(b"no film")
    return path


@pytest.fixture
def clips(folder):
    return WithFrames(Captioned(folder), SETTINGS)


def test_the_frames_are_those_of_the_clip(clips, folder):
    for number, (video, start, end) in enumerate(WINDOWS):
        if video == "a.mp4":
            size = Size(12, 16, stretch=True)
            expected = read_shown(folder / video, lambda n: uniform_test(n, 4), size, start, end)
            found = clips[number]["video"]
            assert found.dtype == torch.uint8
            assert found.movedim(1, -1).numpy().tolist() == expected.frames.tolist()
    assert clips[2]["video"].shape == (0, 3, 12, 16)
    assert clips[2]["text"].shape == (1, 2)


def test_in_training_they_are_drawn_by_the_seed_and_the_clip(clips, folder):
    seen = {}
    for seed in (1, 2, 1):
        clips.set_epoch(seed)
        drawn = [clips[number]["video"] for number in (0, 3)]
        if seed in seen:
            assert all(a.equal(b) for a, b in zip(drawn, seen[seed], strict=True))
        seen[seed] = drawn
    assert not seen[1][0].equal(seen[2][0])
    everything = clips.cache.read(clips.films[0])
    for segment, frame in enumerate(seen[1][0].movedim(1, -1).numpy()):
        part = everything[6 * segment : 6 * segment + 6]  # of 25 frames the last is never drawn
        assert any(np.array_equal(frame, one) for one in part)


def test_they_make_a_batch_and_can_be_dropped_and_cut(clips):
    batch = collate([clips[number] for number in range(4)])
    assert batch.inputs["video"].lengths.tolist() == [4, 4, 0, 4]
    assert [len(part.inputs["video"].values) for part in batch.chunks(2)] == [8, 4]
    assert len(FirstClips(clips, 2)) == 2
    dropped = DroppedModalities(clips, {"video": 0.9}, ["text", "video", "other"])
    assert dropped[0]["video"].shape == (4, 3, 12, 16)


def test_frames_can_be_beside_the_features(folder):
    item = WithFrames(Captioned(folder), RawVideo(2, 8, "frames", 0.5))[0]
    assert item["video"].shape == (2, 5)
    assert item["frames"].shape == (2, 3, 8, 8)


def test_films_that_cannot_be_read_are_named_and_limited(folder):
    with pytest.raises(ValueError, match=r"the frames of 1 of 4 clips cannot be read \(broken.mp4"):
        WithFrames(Captioned(folder), RawVideo(2, 8))


def test_a_window_beyond_its_film_is_one_clip_that_is_bad(folder):
    clips = Captioned(folder)
    clips.captions = [Caption("a.mp4", start, start + 1.0, "") for start in (0.0, 1.0, 90.0)]
    with pytest.raises(ValueError, match=r"the frames of 1 of 3 clips .*begins at 90 s, beyond"):
        WithFrames(clips, RawVideo(2, 8))
    lengths = [len(item["video"]) for item in WithFrames(clips, RawVideo(2, 8, max_bad=0.4))]
    assert lengths == [2, 2, 0]


def test_films_of_clips_that_are_left_out_are_not_decoded(folder, tmp_path):
    task = Retrieval(config_of(tmp_path, {"frames": 2, "frame_size": 8}) | {"max_clips": 2})
    task.source = type("S", (), {"clips": lambda self, *given: Captioned(folder)})()
    assert [film.start for film in task._read("train").films] == [0.0, 1.0]


def test_a_film_of_sound_alone_is_no_mistake(folder):
    write_film(folder / "sound.mp4", seconds=1, picture=False)
    clips = Captioned(folder)
    clips.captions = [Caption("sound.mp4", 0.0, 1.0, "")]
    assert WithFrames(clips, RawVideo(2, 8, max_bad=0.0))[0]["video"].shape == (0, 3, 8, 8)


def test_features_without_films_have_no_frames():
    with pytest.raises(ValueError, match=r"data.raw_video needs films"):
        WithFrames(Captioned(None), SETTINGS)


def config_of(tmp_path, raw_video=None, **encoder):
    spec = {"name": "tsm", "network": NETWORK, **encoder}
    modalities = CONFIG["model"]["modalities"] | {"video": {"encoder": spec}}
    model = {"modalities": modalities}
    return load_config(write_config(tmp_path, model=model, data={"raw_video": raw_video or {}}))


NETWORK = {"block": "bottleneck", "layers": [2, 1, 1, 1], "widths": [8, 8, 16, 16]}


@pytest.mark.parametrize(
    ("raw_video", "message"),
    [
        ({"frame": 8}, "Did you mean 'frames'|did you mean 'frames'"),
        ({"frames": 0}, "data.raw_video.frames must be at least 1; got 0"),
        ({"frame_size": [1, 2, 3]}, "data.raw_video.frame_size is"),
        ({"modality": "audio"}, "data.raw_video.modality is 'audio'"),
        ({"modality": "frames"}, "is frames, which is no modality of the model; choose from"),
    ],
)
def test_a_wrong_setting_is_explained(tmp_path, raw_video, message):
    with pytest.raises(ConfigError, match=message):
        check_config(config_of(tmp_path, raw_video))


@pytest.mark.parametrize("task", ["classification", "question_answering", "localisation"])
def test_other_tasks_refuse_it(tmp_path, task):
    with pytest.raises(ConfigError, match=f"raw_video is of task retrieval; .* for task {task}"):
        make_task(config_of(tmp_path) | {"task": task})


def test_a_run_begins_with_the_weights_of_a_classifier(tmp_path):
    convert_checkpoint(
        published.save(tmp_path, published.published("tsm_bottleneck")), tmp_path / "classifier"
    )
    config = config_of(tmp_path, weights=str(tmp_path / "classifier"))
    model, _ = Retrieval(config).build()
    classifier = published.load_model(tmp_path / "classifier").tsm
    expected = classifier.features(torch.ones(1, 4, 3, 32, 32))
    found = model.eval().encoders["video"].tsm.features(torch.ones(1, 4, 3, 32, 32))
    torch.testing.assert_close(found, expected)
    with torch.device("meta"):
        Retrieval(config).build()
    shutil.rmtree(tmp_path / "classifier")  # a run that goes on has its own weights
    task = Retrieval(config | {"text_encoder": None})
    task.open_encoders(tmp_path / "checkpoint")
    task.build()
    task.open_encoders(None)
    with pytest.raises(ConfigError, match="there is no checkpoint"):
        task.build()


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ({"weights": "nowhere"}, "video.encoder.weights=nowhere: there is no checkpoint"),
        ({"weights": "classifier", "network": "test_resnet"}, "is another network: net.timm"),
    ],
)
def test_weights_that_do_not_fit_are_explained(tmp_path, monkeypatch, encoder, message):
    monkeypatch.chdir(tmp_path)
    convert_checkpoint(
        published.save(tmp_path, published.published("tsm_bottleneck")), tmp_path / "classifier"
    )
    with pytest.raises(ConfigError, match=message):
        Retrieval(config_of(tmp_path, **encoder)).build()


def test_the_recipe_says_how_frames_are_made(tmp_path):
    task = Retrieval(config_of(tmp_path, {"frames": 2}))
    task.source = type("S", (), {"recipe": lambda self: {"features": {"extractor": "x"}}})()
    assert task.recipe()["features"]["raw_video"]["frames"] == 2
