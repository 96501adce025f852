"""Annotations as MSR-VTT, YouCook2 and HowTo100M have them, made up, over a store of our own."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fusion.builders import check_config
from fusion.config import load_config
from fusion.data.captions.formats import read_caption_file
from fusion.data.captions.lists import read_video_list
from fusion.data.captions.match import find_captions, read_all
from fusion.data.captions.table import Caption, CaptionError
from fusion.data.datasets.captioned import CaptionedVideos
from fusion.data.datasets.dataset import collate
from fusion.data.features.format import Field
from fusion.data.features.writer import StoreWriter

FIELDS = {"2d": Field(3, 1.0), "3d": Field(4, 1.5), "audio": Field(40, 100.0)}


def words(text):
    return torch.tensor([[float(len(word))] for word in text.split()]).reshape(-1, 1)


def make_store(folder, videos, seconds=6):
    """Write a store whose rows count up, so that each tells where it was."""
    with StoreWriter(folder, FIELDS, "a") as writer:
        for video in videos:
            rows = {name: int(seconds * field.per_second) for name, field in FIELDS.items()}
            values = {
                name: np.arange(1.0, n + 1)[:, None].repeat(FIELDS[name].width, 1)
                for name, n in rows.items()
            }
            writer.add(video, values)
    return str(folder)


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


MSRVTT = {
    "videos": [{"video_id": "video0", "start time": 137.7, "end time": 149.4, "split": "train"}],
    "sentences": [
        {"caption": f"sentence {n} of {v}", "video_id": f"video{v}", "sen_id": 3 * v + n}
        for v in range(4)
        for n in range(3)
    ],
}


def test_captions_of_msrvtts_json_are_of_whole_videos(tmp_path):
    captions = read_caption_file(write(tmp_path / "a.json", MSRVTT))
    assert captions[4] == Caption("video1", 0.0, float("inf"), "sentence 1 of 1")
    assert all(caption.is_whole for caption in captions)
    broken = {"sentences": [MSRVTT["sentences"][0], {"caption": "x"}]}
    with pytest.raises(CaptionError, match=r"a.json, sentence 2: {'caption': 'x'} needs video"):
        read_caption_file(write(tmp_path / "a.json", broken), max_bad=0)


def test_a_clip_of_a_whole_video_is_all_of_its_features(tmp_path):
    store = make_store(tmp_path / "store", ["video0.mp4", "video1.mp4"])
    test = write(tmp_path / "t.csv", "key,vid_key,video_id,sentence\nret0,msr0,video0,a cat\n")
    clips = CaptionedVideos(test=test, store=store).clips("test", words)
    assert clips.ids == ["video0.mp4"]
    assert len(clips[0]["video"]) == 9 and len(clips[0]["audio"]) == 600
    assert clips.captions[0].end == pytest.approx(6.0, abs=0.02)  # what the report can show
    short = CaptionedVideos(test=test, store=store, max_video_tokens=5, max_audio_frames=70)
    clip = short.clips("test", words)[0]
    assert (len(clip["video"]), len(clip["audio"])) == (5, 70)


def test_a_clip_of_a_whole_video_is_cropped_at_random_like_others(tmp_path):
    store = make_store(tmp_path / "store", ["video0"])
    train = write(tmp_path / "t.csv", "video_id,caption\nvideo0,a cat\n")
    source = CaptionedVideos(train=train, store=store, random_crop_seconds=2.0)
    clips = source.clips("train", words)
    clips.set_epoch(1)
    first = clips[0]["audio"]
    assert 300 <= len(first) < 599 and first[0, 0] > 1
    clips.set_epoch(2)
    assert not first[0].equal(clips[0]["audio"][0])


def test_several_captions_of_a_video_have_ids_of_their_own(tmp_path):
    names = ["video0", "video0#2", "video1"]
    store = make_store(tmp_path / "store", names)
    rows = [["video0#2", "a"], ["video0", "b"], ["video0", "c"], ["video0", "d"]]
    train = write(tmp_path / "t.json", [{"video_id": v, "caption": t} for v, t in rows])
    clips = CaptionedVideos(train=train, store=store).clips("train", words)
    assert len(set(clips.ids)) == 4
    assert clips.ids[:2] == ["video0#2", "video0"]
    assert list(clips.shows) == [0, 1, 1, 1]


def test_one_caption_of_a_video_is_drawn_for_each_epoch(tmp_path):
    store = make_store(tmp_path / "store", [f"video{v}" for v in range(4)])
    file = write(tmp_path / "a.json", MSRVTT)
    source = CaptionedVideos(train=file, validation=file, store=store, group_captions=True)
    clips = source.clips("train", words)
    assert clips.ids == ["video0", "video1", "video2", "video3"]
    drawn = set()
    for seed in range(20):
        clips.set_epoch(seed)
        drawn.add(tuple(clips._text(i) for i in range(4)))
    assert {texts[0] for texts in drawn} == {f"sentence {n} of 0" for n in range(3)}
    assert len(drawn) > 10
    assert len(source.clips("validation", words)) == 12
    assert len(source.texts("train")) == 12


def test_names_without_ending_are_those_of_the_store_and_the_other_way_round(tmp_path):
    store = make_store(tmp_path / "store", ["a/xHr8X2Wpmno.mp4", "video1"])
    rows = "end,start,task,text,video_id\n4,1,226,pour it,xHr8X2Wpmno\n3,2,226,mix,video1.webm\n"
    test = write(tmp_path / "t.csv", rows)
    clips = CaptionedVideos(test=test, store=store).clips("test", words)
    assert clips.ids == ["a/xHr8X2Wpmno.mp4@1-4", "video1@2-3"]
    assert clips[0]["audio"][0, 0] == 99  # rows count from 1; frame 98 begins at 1 s
    twice = make_store(tmp_path / "twice", ["xHr8X2Wpmno.mp4", "xHr8X2Wpmno.webm", "video1"])
    with pytest.raises(ValueError, match=r"xHr8X2Wpmno may be .*mp4 or .*webm; name it in full"):
        CaptionedVideos(test=test, store=twice).clips("test", words)


def asr(folder, *names):
    folder.mkdir()
    for name in names:
        write(folder / name, f"start,end,text\n1.5,2.5,of {name}\n2,4.25,more\n")
    return folder


def test_a_folder_of_csv_files_named_like_their_videos(tmp_path):
    folder = asr(tmp_path / "asr", "aaa.csv", "bbb.csv", "ccc.csv")
    write(folder / "list.csv", "video_path\naaa.mp4\n")
    write(folder / "all.csv", "end,start,text,video_id\n2,1,x,aaa\n")
    found = find_captions(folder, ["aaa.mp4", "bbb.webm", "ddd.mp4", "list.mp4"])
    assert [c.text for c in found["aaa.mp4"]] == ["of aaa.csv", "more"]
    assert [len(captions) for captions in found.values()] == [2, 2, 0, 0]
    videos = {c.video for c in read_all(folder, ["aaa.mp4"])}
    assert videos == {"aaa.mp4", "bbb", "ccc"}
    write(folder / "bbb.csv", "start,end,text\n2,1,x\n")
    with pytest.raises(CaptionError, match=r"bbb.csv, line 2: end \(1\) is not after start"):
        find_captions(folder, ["bbb.webm"])
    write(folder / "aaa.vtt", "WEBVTT\n\n0:01 --> 0:02\nsubtitles\n")
    assert [c.text for c in find_captions(folder, ["aaa.mp4"])["aaa.mp4"]] == ["subtitles"]


def test_a_folder_of_captions_is_a_split_of_the_listed_videos(tmp_path, caplog):
    folder = asr(tmp_path / "asr", "aaa.csv", "bbb.csv", "ccc.csv")
    store = make_store(tmp_path / "store", ["aaa.mp4", "bbb.mp4"])
    only = {"train": write(tmp_path / "list.csv", "video_path\nbbb.webm\naaa.mp4\n")}
    source = CaptionedVideos(train=str(folder), store=store, only=only)
    with pytest.raises(ValueError, match="1 of 2 videos have no captions .*bbb.webm"):
        source.clips("train", words)
    write(tmp_path / "list.csv", "bbb\naaa.mp4\n")  # a name on each line
    clips = CaptionedVideos(train=str(folder), store=store, only=only).clips("train", words)
    assert {caption.video for caption in clips.captions} == {"aaa.mp4", "bbb.mp4"}
    assert not caplog.text


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("video_id\nvideo0\n\nvideo7\nvideo0\n", ["video0", "video7"]),
        ("video0\nvideo7", ["video0", "video7"]),
        ("key,video\n1,a.mp4\n2,b.mp4\n", ["a.mp4", "b.mp4"]),
    ],
)
def test_lists_of_videos(tmp_path, content, names):
    assert read_video_list(write(tmp_path / "list.csv", content)) == names


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "list.csv: no videos; write a name on each line"),
        ("video_id\n", "list.csv: no videos"),
        (
            "key,name\n1,a\n",
            "list.csv, line 1: none of key, name names the videos; call that col",
        ),
        ("video_id\na,b\n", "list.csv, line 2: 2 fields in 1 columns"),
    ],
)
def test_bad_lists_are_refused_with_their_line(tmp_path, content, message):
    with pytest.raises(CaptionError) as error:
        read_video_list(write(tmp_path / "list.csv", content))
    assert message in str(error.value)


def test_videos_without_captions_and_outside_of_the_store_are_named_once(tmp_path, caplog):
    store = make_store(tmp_path / "store", [f"video{v}.mp4" for v in range(1, 4)])
    settings = {
        "train": write(tmp_path / "a.json", MSRVTT),
        "only": {"train": write(tmp_path / "l.csv", "video_id\nvideo0\nvideo1\nvideo3\nvideo9\n")},
        "store": store,
    }
    source = CaptionedVideos(**settings, max_bad=0.5)
    clips = source.clips("train", words)
    assert [caption.video for caption in clips.captions] == ["video1.mp4"] * 3 + ["video3.mp4"] * 3
    source.texts("train")
    assert caplog.text.count("1 of 4 videos have no captions in") == 1
    assert "(video9); left out" in caplog.text
    assert caplog.text.count("3 of 9 clips are of 1 video that") == 1
    assert "does not have (video0); left out" in caplog.text
    with pytest.raises(ValueError, match=r"video9\); that is more than data.max_bad \(0.05\)"):
        CaptionedVideos(**settings).clips("train", words)


def test_clips_of_missing_videos_can_count_as_misses(tmp_path, caplog):
    store = make_store(tmp_path / "store", ["video0"])
    rows = "video,text\nvideo0,a cat\nvideo1,a dog\nvideo2,\n"
    settings = {"test": write(tmp_path / "t.csv", rows), "store": store, "max_bad": 0.7}
    clips = CaptionedVideos(**settings, bad="missing").clips("test", words)
    assert clips.ids == ["video0", "video1"]  # the third would have nothing at all
    assert {name: len(clips[1][name]) for name in ("text", "video", "audio")} == {
        "text": 2, "video": 0, "audio": 0,
    }  # fmt: skip
    batch = collate([clips[0], clips[1]])
    assert batch.present["video"].tolist() == [True, False]
    assert "2 of 3 clips are of 2 videos that" in caplog.text and "as missing" in caplog.text


def test_a_protocol_counts_what_is_left(tmp_path):
    store = make_store(tmp_path / "store", ["video0.mp4"])
    rows = "".join(f"video{n},a cat\n" for n in range(1000))
    settings = {"test": write(tmp_path / "t.csv", "video_id,sentence\n" + rows), "store": store}
    settings |= {"protocol": "msrvtt-1k-A", "max_bad": 1}
    assert len(CaptionedVideos(**settings, bad="missing").clips("test", words)) == 1000
    with pytest.raises(ValueError, match="999 left out; data.bad=missing .* has 1 clips, but the"):
        CaptionedVideos(**settings).clips("test", words)


def test_captions_of_one_window_are_clips_of_their_own_where_the_protocol_says_so(tmp_path):
    store = make_store(tmp_path / "store", ["a"])
    rows = "".join(f"a,1,2,sentence {n}\n" for n in range(3350))
    test = write(tmp_path / "t.csv", "video,start,end,text\n" + rows)
    clips = CaptionedVideos(test=test, store=store, protocol="youcook2-3350").clips("test", words)
    assert len(set(clips.shows)) == 3350
    assert set(CaptionedVideos(test=test, store=store).clips("test", words).shows) == {0}


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="data.bad: unknown 'drop'; choose from missing, leave"):
        CaptionedVideos(bad="drop")
    with pytest.raises(ValueError, match="data.only.tran: unknown 'tran'; choose from train"):
        CaptionedVideos(only={"tran": "list.csv"})


CONFIGS = Path(__file__).parents[3] / "configs"


def test_the_config_of_msrvtt_from_its_annotations(tmp_path):
    folder = tmp_path / "msrvtt"
    folder.mkdir()
    tests = [f"video{n}" for n in range(10, 1010)]
    make_store(folder / "features", [f"{v}.mp4" for v in ["video1", "video3", *tests]], seconds=1)
    write(folder / "MSRVTT_data.json", MSRVTT)
    write(folder / "MSRVTT_train.9k.csv", "video_id\nvideo1\nvideo3\n")
    rows = "".join(f"ret,msr,{name},a cat\n" for name in tests)
    write(folder / "MSRVTT_JSFUSION_test.csv", "key,vid_key,video_id,sentence\n" + rows)
    config = load_config(CONFIGS / "msrvtt/own_features.yaml", [f"data_root={tmp_path}"])
    source = check_config(config)["data"]()
    assert source.clips("train", words).ids == ["video1.mp4", "video3.mp4"]
    assert len(source.clips("test", words)) == 1000
    assert source.protocol_of("test").name == "msrvtt-1k-A"
    assert "MSRVTT_data.json, the videos of MSRVTT_train.9k.csv" in source.describe("train")


def test_the_config_of_youcook2_from_its_annotations(tmp_path):
    folder = tmp_path / "youcook"
    folder.mkdir()
    make_store(folder / "features", ["xHr8X2Wpmno.mp4"])
    rows = "".join(f"{n % 5 + 1},{n % 5},226,cut {n},xHr8X2Wpmno\n" for n in range(3350))
    write(folder / "validation_youcook.csv", "end,start,task,text,video_id\n" + rows)
    config = load_config(CONFIGS / "youcook2/own_features.yaml", [f"data_root={tmp_path}"])
    source = check_config(config)["data"]()
    clips = source.clips("test", words)
    assert len(set(clips.shows)) == len(set(clips.ids)) == 3350
    with pytest.raises(ValueError, match=r"name a caption file under data.train of the config"):
        source.clips("train", words)
