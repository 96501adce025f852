"""Data sets of films with classes: folders, tables, lists, the cache of frames."""

import errno

import numpy as np
import pytest
import torch

from fusion.data.labelled import LABELLED_SETS, LabelledFilms
from fusion.data.labelled.cache import FrameCache
from fusion.data.labelled.readers import read_films
from fusion.data.labelled.sampling import draw_clip, place_clips
from fusion.data.media.decoded import _read_log
from tests.data.labelled.made import level, ramp, write_films

SIZE = {"frames": 4, "frame_size": 32}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_films(tmp_path_factory.mktemp("films"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSION_CACHE", str(tmp_path / "cache"))


def levels(item):
    return [level(frame) for frame in item["video"]]


def write(path, text):
    path.write_text(text)
    return path


def test_a_folder_of_classes_is_read(folder):
    source = LabelledFilms(folder=str(folder), **SIZE)
    assert source.splits == ["train", "validation"] and source.class_names == ["falls", "rises"]
    clips = source.clips("validation")
    assert [film.id for film in clips.films][2:4] == ["falls/2.mp4", "rises/0.mp4"]
    item = clips[3]
    assert item["video"].shape == (4, 3, 32, 32) and item["video"].dtype == torch.uint8
    assert item["targets"]["label"] == 1 and clips.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert levels(item) == [1, 4, 7, 10] and levels(clips[0]) == [10, 7, 4, 1]


def test_frames_are_the_same_from_the_cache_and_from_the_film(folder):
    kept, read = (
        LabelledFilms(folder=str(folder), cache=cache, **SIZE).clips("train")
        for cache in (True, False)
    )
    assert kept.cache is not None and read.cache is None
    for seed in (0, 1):
        for clips in (kept, read):
            clips.set_epoch(seed)
        for one, other in zip(kept, read, strict=True):
            assert one["id"] == other["id"] and one["video"].equal(other["video"])


def test_clips_of_training_belong_to_the_epoch_and_the_film(folder):
    clips = LabelledFilms(folder=str(folder), **SIZE).clips("train")
    drawn = {}
    for seed in (0, 1, 0):
        clips.set_epoch(seed)
        found = [levels(item) for item in clips]
        assert drawn.setdefault(seed, found) == found
    assert drawn[0] != drawn[1]
    assert all(n // 3 == k for row in drawn[0][3:] for k, n in enumerate(row))  # one of each part
    with clips.tested_with(3):
        assert len(clips[0]["video"]) == 12
    assert len(clips[0]["video"]) == 4


def test_sampling_of_several_clips():
    assert place_clips("segments", 12, 4, 1).tolist() == [1, 4, 7, 10]
    assert place_clips("segments", 12, 4, 3).tolist() == [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]
    assert place_clips("dense", 200, 8, 1)[0] == 68  # (200 - 64) / 2
    assert place_clips("dense", 200, 8, 10).shape == (80,)
    rng = np.random.default_rng(0)
    assert draw_clip("segments", 2, 4, rng).tolist() == [0, 0, 1, 1]  # in order
    drawn = draw_clip("dense", 200, 8, rng)
    assert (np.diff(drawn) == 8).all()


def test_a_table_names_parts_of_films_and_splits(folder, tmp_path):
    table = write(
        tmp_path / "all.csv",
        "Video,Label,start,end,split\n"
        "train/rises/0,up,0,0.5,train\ntrain/rises/0,up,0.5,1,val\ntrain/falls/0.mp4,down,,,train\n",
    )
    source = LabelledFilms(table=str(table), root=str(folder), **SIZE)
    assert source.splits == ["train", "validation"] and source.class_names == ["down", "up"]
    train = source.clips("train")
    assert [(f.id, f.video, f.start, f.end) for f in train.films] == [
        ("train/rises/0.mp4", "train/rises/0.mp4", 0, 0.5),
        ("train/falls/0.mp4", "train/falls/0.mp4", 0, None),
    ]
    (item,) = source.clips("validation")
    assert item["id"] == "train/rises/0.mp4#2" and levels(item) == [6, 8, 9, 11]
    assert "all.csv, 2 films of 2 classes" in source.describe("train")


def test_a_list_of_the_published_code_is_read(folder, tmp_path):
    names = write(tmp_path / "names.txt", "going down\ngoing up\n")
    path = write(tmp_path / "train.txt", "train/rises/1 12 1\ntrain/falls/1 12 0\n")
    source = LabelledFilms(train=str(path), root=str(folder), classes=str(names), **SIZE)
    assert [film.label for film in source.films("train")] == ["going up", "going down"]
    assert source.class_names == ["going down", "going up"]
    plain = read_films(path, None, folder)
    assert [film.label for film in plain.films] == ["1", "0"]


def test_digits_that_are_no_numbers_are_names(folder, tmp_path):
    path = write(tmp_path / "train.txt", "train/rises/1 12 ²\n")
    with pytest.raises(ValueError, match="is not PATH FRAMES CLASS"):
        read_films(path, ["a"], folder)
    table = write(tmp_path / "t.csv", "video,label\ntrain/rises/1,²\ntrain/rises/0,1\n")
    source = LabelledFilms(train=str(table), root=str(folder), **SIZE)
    assert source.class_names == ["1", "²"]


def test_a_full_disk_names_ways_out_that_there_are(folder, monkeypatch):
    def full(*given):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(FrameCache, "_decode_all", full)
    films = LabelledFilms(folder=str(folder), cache=True, **SIZE)
    with pytest.raises(ValueError, match="on another disk, or decode .* by data.cache=false$"):
        films.clips("train")
    with pytest.raises(ValueError, match="on another disk$"):
        FrameCache(folder / "train", films.films("train"), films.size).fill()


def test_a_film_that_cannot_be_read_has_no_frames_and_is_named(folder, tmp_path, caplog):
    table = write(
        tmp_path / "t.csv",
        "video,label\n" + "".join(f"train/rises/{n}.mp4,a\n" for n in (0, 1, 7, 2)),
    )
    for cache in (True, False):
        caplog.clear()
        source = LabelledFilms(train=str(table), root=str(folder), cache=cache, max_bad=0.5, **SIZE)
        clips = source.clips("train")
        assert [len(item["video"]) for item in clips] == [4, 4, 0, 4]
        assert "rises/7.mp4: no such file" in caplog.text
    with pytest.raises(ValueError, match="1 of 4 films cannot be read .*max_bad"):
        LabelledFilms(train=str(table), root=str(folder), max_bad=0.0, cache=True, **SIZE).clips(
            "train"
        )


def test_decoding_that_was_interrupted_goes_on(folder, monkeypatch):
    from fusion.data.labelled import cache

    calls = []

    def read(path, *rest):
        calls.append(path)
        if len(calls) <= 4 and path.parent.name == "rises" and path.name == "0.mp4":
            raise KeyboardInterrupt
        return read_shown(path, *rest)

    read_shown = cache.read_shown
    monkeypatch.setattr(cache, "read_shown", read)
    monkeypatch.setattr(FrameCache, "at_a_time", 2)
    source = LabelledFilms(folder=str(folder), cache=True, **SIZE)
    with pytest.raises(KeyboardInterrupt):
        source.clips("train")
    before = len(calls)
    clips = LabelledFilms(folder=str(folder), cache=True, **SIZE).clips("train")
    assert before == 4 and len(calls) - before == 3  # three of six were written
    assert [len(clips.cache.read(film)) for film in clips.films] == [12] * 6
    assert level(clips.cache.read(clips.films[0])[0]) == 11
    assert [level(frame) for frame in ramp()] == list(range(12))


@pytest.mark.parametrize("cut", ["1", '12\n"a.mp4: no', "12\nx\n12\n", "12\n1"])
def test_a_log_that_was_cut_off_is_read_up_to_there(tmp_path, cut):
    kept = [12] if cut.startswith("12") else []
    assert list(_read_log(write(tmp_path / "log", cut))) == kept


def test_parts_of_films_that_cannot_be_read_are_counted_one_by_one(folder, tmp_path):
    lines = [f"train/rises/0.mp4,a,{start},{start + 1}\n" for start in (0, 50, 60, 70)]
    table = write(tmp_path / "t.csv", "video,label,start,end\n" + "".join(lines))
    given = {"train": str(table), "root": str(folder), "cache": True, **SIZE}
    with pytest.raises(ValueError, match=r"3 of 4 films cannot be read .*begins at 50 s.*max_bad"):
        LabelledFilms(max_bad=0.0, **given).clips("train")
    assert len(LabelledFilms(max_bad=0.75, **given).clips("train")) == 4


def test_a_cache_that_was_cut_off_is_made_again(folder, tmp_path):
    source = LabelledFilms(folder=str(folder), cache=True, **SIZE)
    FrameCache(folder / "train", source.films("train"), source.size).fill()
    (pixels,) = (tmp_path / "cache" / "frames").glob("*.pixels")
    pixels.write_bytes(pixels.read_bytes()[:-1])
    assert level(source.clips("train").cache.read(source.films("train")[0])[-1]) == 0


def test_a_cache_that_is_there_is_used_whatever_its_size(folder, monkeypatch):
    assert LabelledFilms(folder=str(folder), cache=True, **SIZE).clips("train").cache is not None
    monkeypatch.setattr("fusion.data.labelled.films.CACHE_BYTES", 1)
    source = LabelledFilms(folder=str(folder), **SIZE)
    assert source.clips("train").cache is not None and source.clips("validation").cache is None


def test_the_first_films_of_a_trial_are_of_all_classes(folder):
    source = LabelledFilms(folder=str(folder), **SIZE)
    source.max_clips = 2
    assert {film.label for film in source.films("train")} == {"rises", "falls"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video,text\na.mp4,x\n", "line 1: there is no column 'label'"),
        ("video,label\na.mp4,\n", "line 2: the label is empty"),
        ("video,label,start\na.mp4,x,soon\n", "line 2: start is 'soon'; it must be seconds"),
        ("video,label,start,end\na.mp4,x,3,2\n", "line 2: the film ends at 2 s, before it begins"),
        ("video,label,split\na.mp4,x,tset\n", "split 'tset' is unknown; did you mean 'test'"),
        ("video,label\n", "has no line below its header"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        LabelledFilms(train=str(write(tmp_path / "t.csv", text)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "data names no films"),
        ({"train": "nowhere.csv"}, "nowhere.csv: no such file or folder"),
        ({"folder": "nowhere"}, "nowhere has no train, val or test"),
        ({"train": "x.csv", "sampling": "all"}, "sampling: unknown 'all'; choose from segments"),
        ({"train": "x.csv", "frame_size": [1, 2, 3]}, "frame_size is"),
        ({"train": "x.csv", "frames": 65}, "frames must be from 1 to 64"),
    ],
)
def test_settings_that_cannot_be_used_are_one_line(change, message):
    with pytest.raises(ValueError, match=message):
        LabelledFilms(**change)


def test_a_class_that_training_lacks_is_named(folder, tmp_path):
    table = write(tmp_path / "v.csv", "video,label\ntrain/rises/0.mp4,rise\n")
    source = LabelledFilms(folder=str(folder), validation=str(table), root=str(folder), **SIZE)
    with pytest.raises(ValueError, match="unknown class 'rise'; did you mean 'rises'"):
        source.clips("validation")


def test_the_order_classes_are_such_a_set():
    source = LABELLED_SETS["order_classes"](training_films=8, frames=4, cache=False)
    assert source.splits == ["train", "validation", "test"] and len(source.pairs) == 4
    clips = source.clips("test")
    assert len(clips) == 8 and clips[0]["video"].shape == (4, 3, 72, 72)
    assert clips.labels.tolist() == list(range(8))
