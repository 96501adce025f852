"""Packing published features: the store gives the same clips."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from fusion.commands.pack import pack_howto100m, pack_pickle
from fusion.data.datasets.captioned import CaptionedVideos
from fusion.data.datasets.howto100m import HowTo100M
from fusion.data.datasets.msrvtt_youcook2 import PickledVideos
from fusion.data.datasets.sampling import fit_video_tokens
from fusion.data.features.store import FeatureStore
from fusion.data.features.writer import StoreWriter
from tests.data.datasets.test_howto100m import VIDEOS, own_cache, root, words  # noqa: F401 (fixtures)
from tests.data.datasets.test_msrvtt_youcook2 import entry, write
from tests.processes import context


def test_the_store_of_howto100m_gives_the_same_clips(root, tmp_path, capsys):  # noqa: F811
    pack_howto100m(root, tmp_path / "store")
    assert "3 videos added, 0 there before, 0 with problems" in capsys.readouterr().out
    published = HowTo100M(str(root)).clips("train", words)
    packed = HowTo100M(str(root), store=str(tmp_path / "store")).clips("train", words)
    order = [VIDEOS.index(name) for name in packed.videos]
    packed.videos = [packed.videos[order.index(i)] for i in range(3)]  # a store sorts its names
    for clips in (published, packed):
        clips.set_epoch(4)
    for index in range(30):
        ours, theirs = packed[index], published[index]
        assert ours["id"] == theirs["id"]
        for name in ("text", "video", "audio"):
            assert ours[name].equal(theirs[name]), (index, name)


def test_packing_goes_on_and_names_what_it_could_not_read(root, tmp_path, capsys):  # noqa: F811
    bad = root / "howto" / "features" / "food" / "bbb" / "bbb_3d.npz"
    good = bad.read_bytes()
    bad.write_bytes(good[:99])
    store = tmp_path / "store"
    pack_howto100m(root, store)
    assert "3 videos added, 0 there before, 1 with problems" in capsys.readouterr().out
    report = json.loads((store / "pack-report-0.json").read_text())
    assert list(report["problems"]) == ["food/bbb"]
    assert "bbb_3d.npz is damaged" in report["problems"]["food/bbb"][0]
    opened = FeatureStore(store)
    assert opened.rows("food/bbb", "3d") == 0
    assert opened.rows("food/bbb", "2d") == 6
    assert opened.facts("food/bbb")["problems"] == report["problems"]["food/bbb"]
    pack_howto100m(root, store)
    assert "0 videos added, 3 there before" in capsys.readouterr().out


def pack_as_rank(rank, barrier, pack, arguments):
    """Pack as one of two processes."""
    os.environ |= {"WORLD_SIZE": "2", "RANK": str(rank)}
    begin = StoreWriter.__enter__
    StoreWriter.__enter__ = lambda writer: (barrier.wait(), begin(writer))[1]
    pack(*arguments)


def in_processes_that_begin_at_once(pack, *arguments):
    """Pack in two processes, neither of which can see what the other one writes."""
    barrier = context.Barrier(2, timeout=60)
    processes = [
        context.Process(target=pack_as_rank, args=(rank, barrier, pack, arguments))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]


@pytest.mark.parametrize("kind", ["howto100m", "pickle"])
def test_processes_share_the_videos_out(kind, root, tmp_path):  # noqa: F811
    store = tmp_path / "store"
    if kind == "howto100m":
        expected = VIDEOS
        in_processes_that_begin_at_once(pack_howto100m, root, store)
    else:
        expected = [f"video{n}" for n in range(5)]
        file = write(tmp_path / "resnet" / "some.pkl", [entry(n) for n in range(5)])
        in_processes_that_begin_at_once(pack_pickle, Path(file), store)
        assert len((store / "some.csv").read_text().splitlines()) == 1 + 5
    pieces = [json.loads(piece.read_text())["videos"] for piece in store.glob("shards/*.json")]
    assert sorted(video for videos in pieces for video in videos) == sorted(expected)
    assert len(pieces) == 2


def test_captions_are_written_by_the_first_process(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    file = Path(write(tmp_path / "resnet" / "some.pkl", [entry(0), entry(1)]))
    for rank in (1, 0):
        monkeypatch.setenv("RANK", str(rank))
        pack_pickle(file, tmp_path / "store")
        assert (tmp_path / "store" / "some.csv").exists() == (rank == 0)


def test_features_of_a_pickle_that_cannot_be_kept_are_named_and_left_out(tmp_path, capsys):
    nan, large = entry(1)["2d"].copy(), entry(2)["3d"].astype(np.float32)
    nan[0, 0], large[1, 1] = np.nan, 1e5
    entries = [entry(0), entry(1, **{"2d": nan}), entry(2, **{"3d": large}), entry(3)]
    store = tmp_path / "store"
    pack_pickle(Path(write(tmp_path / "resnet" / "some.pkl", entries)), store)
    assert "4 videos added, 0 there before, 2 with problems" in capsys.readouterr().out
    report = json.loads((store / "pack-report-0.json").read_text())
    assert report["problems"] == {
        "video1": ["2d of video1: 1 of 24 values are not finite"],
        "video2": ["3d of video2: not finite, or too large for float16"],
    }
    opened = FeatureStore(store)
    assert {v: opened.facts(v).get("problems") for v in opened.videos} == {
        "video0": None, "video3": None, **report["problems"]
    }  # fmt: skip
    rows = {v: [opened.rows(v, f) for f in ("2d", "3d", "audio")] for v in opened.videos}
    assert rows["video1"] == [0, 7, 50] and rows["video2"] == [4, 0, 50]


def test_a_pickle_with_features_of_motion_alone_is_packed(tmp_path):
    entries = [entry(n, **{"2d": None, "2d_pooled": None}) for n in range(2)]
    file = write(tmp_path / "resnet" / "some.pkl", entries)
    pack_pickle(Path(file), tmp_path / "store")
    assert list(FeatureStore(tmp_path / "store").fields) == ["3d", "audio"]
    captions, settings = tmp_path / "store" / "some.csv", {"max_video_tokens": 12}
    ours = CaptionedVideos(test=str(captions), store=str(tmp_path / "store"), **settings)
    mine, made = ours.clips("test", words)[0], torch.from_numpy(entries[0]["3d"]).float()
    assert mine["video"].equal(
        fit_video_tokens(None, made[:1], 12).half()
    )  # half a second, as the sound


def test_a_pickle_becomes_a_store_and_captions(tmp_path):
    entries = [entry(n) for n in range(4)] + [entry(4, audio=None)]
    for made in entries:
        made["3d"] = made["3d"][:6]  # as many seconds as the 2D features
    file = write(tmp_path / "resnet" / "some.pkl", entries)
    pack_pickle(tmp_path / "resnet" / "some.pkl", tmp_path / "store")
    settings = {"max_video_tokens": 12, "max_audio_frames": 768}
    store = str(tmp_path / "store")
    captions = tmp_path / "store" / "some.csv"
    every = (tmp_path / "store" / "some_training.csv").read_text().splitlines()
    assert len(every) == 1 + 3 * 5
    assert every[2].endswith(",two dogs 0")
    ours = CaptionedVideos(test=str(captions), store=store, **settings).clips("test", words)
    theirs = PickledVideos(test=file, **settings).clips("test", words)
    for mine, clip, made in zip(ours, theirs, entries, strict=True):
        assert mine["audio"].equal(clip["audio"])
        assert mine["text"].equal(clip["text"])
        # The made-up sound lasts half a second, so there is one row of each.
        kinds = [torch.from_numpy(made[k]).float() for k in ("2d", "3d")]
        rows = [k[:1] for k in kinds] if "audio" in made else kinds
        assert mine["video"].equal(fit_video_tokens(*rows, 12).half())
    with pytest.raises(ValueError, match="write to another folder"):
        write(tmp_path / "resnet" / "wide.pkl", [entry(0, **{"2d": np.ones((4, 9))})])
        pack_pickle(tmp_path / "resnet" / "wide.pkl", tmp_path / "store")


def test_clips_of_videos_that_a_store_lacks_are_left_out(tmp_path, caplog):
    write(tmp_path / "resnet" / "some.pkl", [entry(n) for n in range(30)])
    pack_pickle(tmp_path / "resnet" / "some.pkl", tmp_path / "store")
    captions = tmp_path / "store" / "some.csv"
    captions.write_text(captions.read_text() + "gone,0,1,a cat\n")
    settings = {"test": str(captions), "store": str(tmp_path / "store")}
    assert len(CaptionedVideos(**settings).clips("test", words)) == 30
    assert "1 of 31 clips are of 1 video that" in caplog.text
    assert "does not have (gone); left out" in caplog.text
    with pytest.raises(ValueError, match=r"more than data.max_bad \(0.01\) allows"):
        CaptionedVideos(**settings, max_bad=0.01).clips("test", words)


def test_what_cannot_be_packed_is_explained(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ValueError, match="has no folder howto.*; name a folder with howto/capt"):
        pack_howto100m(tmp_path, tmp_path / "store")
    with pytest.raises(ValueError, match=r"a.txt is a file.*howto/features.* training.md"):
        pack_howto100m(tmp_path / "a.txt", tmp_path / "store")
    with pytest.raises(ValueError, match=r"is a folder; name one pickle of clips.*come with data"):
        pack_pickle(tmp_path, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_one_of_a_kind_is_not_several(tmp_path, capsys):
    write(tmp_path / "resnet" / "some.pkl", [entry(0)])
    pack_pickle(tmp_path / "resnet" / "some.pkl", tmp_path / "store")
    said = capsys.readouterr().out
    assert "store: 1 video added" in said and "some.csv: 1 caption\n" in said


def test_numbers_too_large_for_the_store_are_named(root, tmp_path):  # noqa: F811
    path = root / "howto" / "features" / "food" / "bbb" / "bbb_2d.npz"
    np.savez(path, features=np.full((6, 2048), 1e6, np.float32))
    pack_howto100m(root, tmp_path / "store")
    report = json.loads((tmp_path / "store" / "pack-report-0.json").read_text())
    assert "too large for float16" in report["problems"]["food/bbb"][0]
    assert torch.isfinite(FeatureStore(tmp_path / "store").read("food/bbb", "3d")).all()
