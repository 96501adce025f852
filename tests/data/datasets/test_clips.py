import dataclasses

import numpy as np
import pytest
import torch

from fusion.data.datasets.captioned import CaptionedVideos
from fusion.data.datasets.dataset import collate
from fusion.data.datasets.howto100m import HowTo100M
from fusion.data.datasets.msrvtt_youcook2 import msrvtt
from fusion.data.features import computed as features_module
from fusion.data.media.decode import MediaError
from fusion.data.media.encode import write_clip
from tests.data.captions.test_annotations import make_store, words, write

RATE = 16_000


def encode_words(text):
    return torch.ones(len(text.split()), 3)


def write_film(path, seconds=4.0, picture=True, sound=True):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (int(10 * seconds), 48, 64, 3), dtype=np.uint8)
    wave = 0.3 * np.sin(np.arange(int(RATE * seconds)) * 0.2).astype(np.float32)
    write_clip(path, frames if picture else None, 10, wave if sound else None, RATE)


@pytest.fixture
def videos(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSION_CACHE", str(tmp_path / "cache"))
    write_film(tmp_path / "both.mp4")
    write_film(tmp_path / "mute.mp4", sound=False)
    write_film(tmp_path / "blind.mp4", picture=False)
    rows = ["both.mp4,0.5,3.5,a red star", "mute.mp4,0,2,a blue ring", "blind.mp4,1,4,a flute"]
    rows += ["both.mp4,0,2,", "both.mp4,0,2,the same window again"]
    (tmp_path / "train.csv").write_text("\n".join(["video,start,end,text", *rows]))
    return tmp_path


def open_clips(folder, **settings):
    return CaptionedVideos(train=str(folder / "train.csv"), **settings).clips("train", encode_words)


def test_a_clip_is_what_is_said_seen_and_heard_in_its_window(videos):
    clip = open_clips(videos)[0]
    assert clip["id"] == "both.mp4@0.5-3.5"
    assert clip["text"].shape == (3, 3)
    assert clip["video"].shape == (11, 125)  # 10/3 rows per second, both ends included
    assert clip["audio"].shape == (300, 40)
    kinds = [clip[m].dtype for m in ("text", "video", "audio")]
    assert kinds == [torch.float32, torch.float32, torch.float16]  # as stored


def test_what_a_file_lacks_is_a_missing_modality(videos):
    clips = open_clips(videos)
    lengths = [[len(clips[i][m]) for m in ("text", "video", "audio")] for i in range(5)]
    assert [[bool(n) for n in row] for row in lengths] == [
        [True, True, True],
        [True, True, False],
        [True, False, True],
        [False, True, True],
        [True, True, True],
    ]


def test_ids_are_unique(videos):
    ids = open_clips(videos).ids
    assert len(set(ids)) == 5
    assert ids[-1] == "both.mp4@0-2#2"


def test_limits_cut_long_clips(videos):
    clip = open_clips(videos, max_video_tokens=4, max_audio_frames=64)[0]
    assert (len(clip["video"]), len(clip["audio"])) == (4, 64)


def test_random_crops_depend_on_seed_and_clip_alone(videos):
    clips = open_clips(videos, random_crop_seconds=0.5)
    whole = len(clips[0]["audio"])
    clips.set_epoch(1)
    first = [len(clips[i]["audio"]) for i in range(5)]
    assert first == [len(clips[i]["audio"]) for i in range(5)]
    clips.set_epoch(2)
    assert first != [len(clips[i]["audio"]) for i in range(5)]
    assert whole - 101 <= first[0] < whole


def test_features_are_computed_once_and_again_when_the_file_changes(videos, monkeypatch):
    count = []
    compute = features_module.EXTRACTORS["descriptors"].compute
    counting = dataclasses.replace(
        features_module.EXTRACTORS["descriptors"],
        compute=lambda frames: count.append(len(frames)) or compute(frames),
    )
    monkeypatch.setitem(features_module.EXTRACTORS, "descriptors", counting)
    before = open_clips(videos)[0]["video"]
    assert open_clips(videos)[0]["video"].equal(before)
    assert len(count) == 3
    write_film(videos / "both.mp4", seconds=5.0)
    open_clips(videos)
    assert len(count) == 4


def test_a_damaged_cache_is_made_again(videos):
    before = open_clips(videos)[0]["audio"]
    for file in (videos / "cache" / "features").rglob("*.safetensors"):
        file.write_bytes(b"damaged")
    assert open_clips(videos)[0]["audio"].equal(before)


def test_features_that_are_not_finite_are_refused_with_the_clips_name(videos, monkeypatch):
    poisoned = dataclasses.replace(
        features_module.EXTRACTORS["descriptors"],
        compute=lambda frames: (torch.full((9, 75), float("nan")), torch.ones(14, 50)),
    )
    monkeypatch.setitem(features_module.EXTRACTORS, "descriptors", poisoned)
    clips = open_clips(videos)
    with pytest.raises(ValueError, match="5 of 5 clips have features that cannot be used"):
        for index in range(5):
            clips[index]
    clips._unreadable = None  # as for films that are embedded
    with pytest.raises(ValueError, match=r"video of clip both.mp4@0.5-3.5: .* not finite"):
        clips[0]


def test_f14_clips_that_cannot_be_used_are_missing_named_once_and_limited(videos, caplog):
    clips = open_clips(videos)
    plain, damaged = clips.reader.read, {"both.mp4"}

    def read(video, field, first=0, last=None):
        rows = plain(video, field, first, last).clone()
        if video in damaged and field == "2d":
            rows[:1] = float("nan")
        if video in damaged and field == "audio":
            raise ValueError("both.mp4: its shard is missing")
        return rows

    clips.reader.read = read
    for _ in range(2):
        first, other = clips[0], clips[1]
        assert len(first["video"]) == len(first["audio"]) == 0 < len(first["text"])
        assert len(other["video"])
    said = [record.message for record in caplog.records if "cannot be used" in record.message]
    assert len(said) == 1 and "both.mp4@0.5-3.5" in said[0] and "taken as missing" in said[0]
    damaged |= {"mute.mp4", "blind.mp4"}
    strict = open_clips(videos, max_bad=0.01)
    strict.reader.read = read
    with pytest.raises(ValueError, match=r"1 of 5 clips .* more than data.max_bad \(0.01\)"):
        strict[0]


def test_videos_beside_the_captions_may_be_named_without_ending(videos):
    (videos / "train.csv").write_text("video_id,caption\nmute,a ring\nboth.mp4,a star\n")
    clips = open_clips(videos)
    assert clips.ids == ["mute.mp4", "both.mp4"]
    assert clips.captions[1].end == pytest.approx(4.0, abs=0.05)


def test_a_missing_video_is_explained(videos):
    (videos / "both.mp4").unlink()
    with pytest.raises(MediaError, match=r"both.mp4: no such file; name it relative to"):
        open_clips(videos)


def test_a_missing_split_is_explained(videos):
    with pytest.raises(
        ValueError, match=r"no split 'test' \(it has: train\); choose one of them, or name"
    ):
        CaptionedVideos(train=str(videos / "train.csv")).clips("test", encode_words)


def test_unknown_features_are_explained(videos):
    with pytest.raises(ValueError, match="unknown 'resnet'; choose from descriptors"):
        CaptionedVideos(video_features="resnet")


def test_clips_become_a_batch(videos):
    clips = open_clips(videos)
    batch = collate([clips[i] for i in range(5)])
    assert batch.ids == tuple(clips.ids)
    assert batch.present["audio"].tolist() == [True, False, True, True, True]
    assert batch.inputs["text"].lengths.tolist() == [3, 3, 2, 0, 4]


def test_a_clip_without_any_modality_is_none_that_anything_counts():
    nothing = {"id": "empty.mp4@0-1", "text": torch.zeros(0, 3), "audio": torch.zeros(0, 40)}
    assert not any(flags.any() for flags in collate([nothing]).present.values())


def test_f18_widths_that_differ_are_named():
    clips = [{"id": str(n), "video": torch.zeros(2, n)} for n in (3, 4)]
    with pytest.raises(ValueError, match=r"'4' has video features of width \[4\], but '3' has"):
        collate(clips)


# Clips of videos that a store lacks, and after the end of its features.
ROWS = "video,start,end,text\na,1,4,in it\na,50,60,too late\na,60,70,\nb,0,1,not there\na,5,9,end\n"


@pytest.fixture
def lossy(tmp_path):
    store = make_store(tmp_path / "store", ["a"])
    return {"test": write(tmp_path / "t.csv", ROWS), "store": store, "max_bad": 0.6}


def test_a_clip_after_the_end_of_its_features_is_a_miss(lossy, caplog):
    clips = CaptionedVideos(**lossy, bad="missing").clips("test", words)
    assert clips.ids == ["a@1-4", "a@50-60", "b@0-1", "a@5-9"]  # not the one without text
    assert [len(clips[1][name]) for name in ("text", "video", "audio")] == [2, 0, 0]
    assert len(clips[3]["audio"]) > 100
    assert "t.csv: 1 of 5 clips are of 1 video that" in caplog.text
    assert "2 of 5 clips begin after the features of" in caplog.text
    assert "(a@50-60, features end at 6.01 s; a@60-70, features end at 6.01 s)" in caplog.text
    assert caplog.text.count("taken as missing") == 1


def test_or_it_is_left_out_and_said_once(lossy, caplog):
    source = CaptionedVideos(**lossy)
    for _ in range(2):
        assert source.clips("test", words).ids == ["a@1-4", "a@5-9"]
    assert caplog.text.count("left out") == 1


def test_too_many_of_both_kinds_together_end_the_run(lossy):
    with pytest.raises(ValueError, match=r"a@50-60, .*more than data.max_bad \(0.5\) allows"):
        CaptionedVideos(**lossy | {"max_bad": 0.5}).clips("test", words)


def test_only_the_first_process_speaks(lossy, caplog, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    CaptionedVideos(**lossy).clips("test", words)
    assert not caplog.text


@pytest.mark.parametrize("share", [50, 1.01, -0.1, float("nan")])
@pytest.mark.parametrize("source", [CaptionedVideos, HowTo100M, msrvtt])
def test_a_share_is_between_nothing_and_all(source, share):
    with pytest.raises(ValueError, match=r"data.max_bad is .*; it is a share and must be between"):
        source("folder", max_bad=share)
