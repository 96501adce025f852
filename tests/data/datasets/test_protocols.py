"""Each protocol from files to a table, by a model that finds everything it is given."""

import dataclasses
import pickle

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn

from fusion.data.datasets.msrvtt_youcook2 import PickledVideos
from fusion.data.datasets.protocols import PROTOCOLS
from fusion.evaluation.settings import Settings
from fusion.tasks.retrieval.ranking import embed_clips
from fusion.tasks.retrieval.task import describe_result

CLIPS = 20
SILENT, SHORT = (3, 7, 8), (5, 11)  # clips without sound; without features of full length

# Protocol: clips in the gallery, queries, and R@1 of t->v and of t->a.
EXPECTED = {
    "all": (20, 20, 90.0, 85.0),
    "msrvtt-1k-A": (20, 20, 90.0, 85.0),
    "msrvtt-968-of-1000": (17, 20, 75.0, 85.0),
    "msrvtt-full": (20, 40, 90.0, 85.0),
    "youcook2-3350": (20, 20, 90.0, 85.0),
    "youcook2-3339-of-3350": (18, 20, 90.0, 75.0),
}


class Finder(nn.Module):
    """Says which clip it was given by any of its modalities."""

    def forward(self, inputs, combinations=None):
        singles = {name[0]: tokens.pad()[0].sum(1)[:, :CLIPS] for name, tokens in inputs.items()}
        names = ["t", "v", "a", "tv", "ta", "va"]
        return {name: torch.stack([singles[x] for x in name]).mean(0) for name in names}


def say(text):
    return torch.eye(CLIPS)[int(text.split()[1])][None]


def entries(silent=SILENT, short=SHORT):
    units = np.eye(40, dtype=np.float16)
    made = []
    for number in range(CLIPS):
        row = units[number : number + 1]
        clip = {"id": f"c{number}", "caption": [f"clip {number}", f"again {number}"]}
        clip |= {"2d": row[0], "3d": row[0]}
        if number not in short:
            clip |= {"2d_full": row, "3d_full": row}
        if number not in silent:
            clip["audio"] = row.T
        made.append(clip)
    return made


@pytest.fixture
def small(monkeypatch):
    """The protocols as they are, with 20 for every number of clips and 40 for captions."""
    for name, protocol in PROTOCOLS.items():
        scaled = dataclasses.replace(
            protocol,
            clips=protocol.clips and CLIPS,
            captions=protocol.captions and 2 * CLIPS,
            counted=protocol.counted and CLIPS,
        )
        monkeypatch.setitem(PROTOCOLS, name, scaled)


def write(path, content):
    path.write_bytes(pickle.dumps(content))
    return str(path)


def table(tmp_path, protocol, made=None, **settings):
    file = write(tmp_path / "test.pkl", made or entries())
    source = PickledVideos(test=file, protocol=protocol, max_bad=0.5, **settings)
    embedded = embed_clips(Finder(), source.clips("test", say), Accelerator(cpu=True), 7)
    return describe_result(source, "test", embedded, Settings(), None)[0]


def test_every_protocol_is_tried():
    assert list(EXPECTED) == list(PROTOCOLS)


@pytest.mark.parametrize("protocol", EXPECTED)
def test_a_protocol_counts_as_it_says(tmp_path, small, protocol):
    result = table(tmp_path, protocol)
    gallery, queries, by_video, by_audio = EXPECTED[protocol]
    assert (result["gallery"], result["counted"]) == (gallery, CLIPS)
    rows = result["directions"]
    assert rows["t->v"]["queries"] == queries
    assert rows["t->v"]["R@1"] == pytest.approx(by_video)
    assert rows["t->a"]["R@1"] == pytest.approx(by_audio)


@pytest.mark.parametrize(
    ("protocol", "lacking"), [("msrvtt-968-of-1000", SILENT), ("youcook2-3339-of-3350", SHORT)]
)
def test_clips_that_a_file_does_not_have_are_misses_like_those_it_has(
    tmp_path, small, protocol, lacking
):
    result = table(tmp_path, protocol, [e for n, e in enumerate(entries()) if n not in lacking])
    gallery, _, by_video, _ = EXPECTED[protocol]
    assert (result["gallery"], result["counted"]) == (gallery, CLIPS)
    assert result["directions"]["t->v"]["R@1"] == pytest.approx(by_video)


OTHERS = {
    "s3d": {"features": "s3d"},
    "clip": {"features": "clip"},
    "pooled": {"max_video_tokens": 0},
    "resnet": {},
}


@pytest.mark.parametrize("features", OTHERS)
def test_the_pickle_of_resnet_features_chooses_youcooks_clips(tmp_path, small, caplog, features):
    """S3D, CLIP and pooled features are there for all 20 clips; two lack ``2d_full``."""
    rows = np.eye(40, dtype=np.float16)
    beside = [{"id": f"c{n}", features: rows[n : n + 1]} for n in range(CLIPS)]
    settings = dict(OTHERS[features])
    if "features" in settings:
        settings["beside"] = {"test": write(tmp_path / "beside.pkl", beside)}
    result = table(tmp_path, "youcook2-3339-of-3350", **settings)
    assert result["gallery"] == 18
    assert result["directions"]["t->v"]["R@1"] == pytest.approx(90.0)
    assert "2 of 20 entries have no '2d_full' (c5, c11); left out" in caplog.text
    assert table(tmp_path, "youcook2-3350", **settings)["gallery"] == 20


def test_training_goes_without_the_clips_that_the_protocol_leaves_out(tmp_path):
    file = write(tmp_path / "train.pkl", entries())
    for protocol, number in [("youcook2-3339-of-3350", 18), ("youcook2-3350", 20)]:
        assert len(PickledVideos(train=file, protocol=protocol).clips("train", say)) == number


def test_a_clip_with_damaged_features_stays_in_youcooks_gallery(tmp_path, small):
    made = entries(short=())
    made[4]["2d_full"] = np.full((1, 40), np.nan, np.float16)
    result = table(tmp_path, "youcook2-3339-of-3350", made)
    assert result["gallery"] == 20
    assert result["directions"]["t->v"]["R@1"] == pytest.approx(95.0)


def test_a_file_of_another_layout_cannot_serve_youcooks_protocol(tmp_path, small):
    made = entries(short=range(CLIPS))
    with pytest.raises(ValueError, match=r"test.pkl: no entry has '2d_full', .* or another data"):
        table(tmp_path, "youcook2-3339-of-3350", made)


def test_chance_is_that_of_the_gallery_with_misses_for_the_others(tmp_path, small):
    chance = table(tmp_path, "msrvtt-968-of-1000")["chance"]
    assert chance["R@1"] == pytest.approx(5.0)  # 17 of 20 are asked, one of 17 is guessed
    assert chance["R@50"] == pytest.approx(85.0)
    assert (chance["MedR"], chance["MeanR"]) == (9.0, 9.0)
