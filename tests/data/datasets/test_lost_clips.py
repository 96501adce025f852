"""Clips that a store cannot show: of videos that it lacks, and after their features end."""

import pytest

from fusion.data.datasets.captioned import CaptionedVideos
from fusion.data.datasets.howto100m import HowTo100M
from fusion.data.datasets.msrvtt_youcook2 import msrvtt
from tests.data.captions.test_annotations import make_store, words, write

ROWS = "video,start,end,text\na,1,4,in it\na,50,60,too late\na,60,70,\nb,0,1,not there\na,5,9,end\n"


@pytest.fixture
def settings(tmp_path):
    store = make_store(tmp_path / "store", ["a"])
    return {"test": write(tmp_path / "t.csv", ROWS), "store": store, "max_bad": 0.6}


def test_a_clip_after_the_end_of_its_features_is_a_miss(settings, caplog):
    clips = CaptionedVideos(**settings, bad="missing").clips("test", words)
    assert clips.ids == ["a@1-4", "a@50-60", "b@0-1", "a@5-9"]  # not the one without text
    assert [len(clips[1][name]) for name in ("text", "video", "audio")] == [2, 0, 0]
    assert len(clips[3]["audio"]) > 100
    assert "t.csv: 1 of 5 clips are of 1 video that" in caplog.text
    assert "2 of 5 clips begin after the features of" in caplog.text
    assert "(a@50-60, features end at 6.01 s; a@60-70, features end at 6.01 s)" in caplog.text
    assert caplog.text.count("taken as missing") == 1


def test_or_it_is_left_out_and_said_once(settings, caplog):
    source = CaptionedVideos(**settings)
    for _ in range(2):
        assert source.clips("test", words).ids == ["a@1-4", "a@5-9"]
    assert caplog.text.count("left out") == 1


def test_too_many_of_both_kinds_together_end_the_run(settings):
    with pytest.raises(ValueError, match=r"a@50-60, .*more than data.max_bad \(0.5\) allows"):
        CaptionedVideos(**settings | {"max_bad": 0.5}).clips("test", words)


def test_only_the_first_process_speaks(settings, caplog, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    CaptionedVideos(**settings).clips("test", words)
    assert not caplog.text


@pytest.mark.parametrize("share", [50, 1.01, -0.1, float("nan")])
@pytest.mark.parametrize("source", [CaptionedVideos, HowTo100M, msrvtt])
def test_a_share_is_between_nothing_and_all(source, share):
    with pytest.raises(ValueError, match=r"data.max_bad is .*; it is a share and must be between"):
        source("folder", max_bad=share)
