import numpy as np
import pytest

from fusion.data.datasets.captioned import CaptionedVideos
from fusion.data.datasets.demo import demo
from fusion.data.features.format import Field
from fusion.data.features.writer import StoreWriter
from fusion.training.sampler import EpochBatchSampler

FIELDS = {"2d": Field(3, 1.0), "audio": Field(40, 100.0)}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Ten films of 30 s."""
    folder = tmp_path_factory.mktemp("films") / "store"
    with StoreWriter(folder, FIELDS, name="w") as writer:
        for number in range(10):
            rows = {"2d": np.ones((30, 3)), "audio": np.ones((3000, 40))}
            writer.add(f"film{number}", rows, {})
    return str(folder)


def write(folder, *rows):
    path = folder / "captions.csv"
    path.write_text("\n".join(["video,start,end,text", *rows]) + "\n")
    return str(path)


def films_of(data, split):
    return {caption.video for caption in data.clips(split).captions}


def test_films_are_held_out_by_name(store, tmp_path, caplog):
    rows = [f"film{n},{start},{start + 2},x" for n in range(10) for start in (0, 4)]
    data = CaptionedVideos(write(tmp_path, *rows), store=store, held_out=0.2)
    assert data.splits == ["train", "validation"]
    train, held = films_of(data, "train"), films_of(data, "validation")
    assert len(held) == 2 and len(train) == 8 and not train & held
    assert len(data.clips("validation").captions) == 4
    assert len(data.texts("train")) == 16
    assert caplog.text.count("2 of 10 films, with 4 captions, are held out for validation") == 1
    assert "2 films held out" in data.describe("validation")
    again = CaptionedVideos(write(tmp_path, *rows[::-1]), store=store, held_out=0.2)
    assert films_of(again, "validation") == held


def test_a_validation_file_holds_nothing_out(store, tmp_path):
    file = write(tmp_path, "film0,0,2,x", "film1,0,2,x")
    data = CaptionedVideos(file, validation=file, store=store, held_out=0.2)
    assert films_of(data, "train") == films_of(data, "validation") == {"film0", "film1"}


def test_one_film_cannot_be_held_out(store, tmp_path):
    data = CaptionedVideos(write(tmp_path, "film0,0,2,x"), store=store, held_out=0.2)
    with pytest.raises(ValueError, match="is about one film, so none can be held out; name data"):
        data.clips("train")


def test_lengths_are_those_of_the_longest_clip(store, tmp_path, caplog):
    file = write(tmp_path, "film0,0,2,x", "film1,3,12.5,x")
    free = {"max_video_tokens": None, "max_audio_frames": None}
    data = CaptionedVideos(file, store=store, **free)
    assert data.fit() == {"max_video_tokens": 11, "max_audio_frames": 960}
    assert data.fit() == {}
    assert [len(clip["audio"]) for clip in data.clips("train")] == [198, 950]
    assert data.recipe() is None or data.recipe()["max_audio_frames"] == 960
    assert not caplog.records


def test_clips_that_are_cut_are_counted(store, tmp_path, caplog):
    file = write(tmp_path, "film0,0,2,x", "film1,3,14,x", "film2,,,x")
    free = {"max_video_tokens": None, "max_audio_frames": None, "max_seconds": 6.4}
    data = CaptionedVideos(file, store=store, **free)
    assert [len(clip["audio"]) for clip in data.clips("train")] == [198, 640, 640]
    assert caplog.text.count("train: 2 of 3 clips are longer than 6.4 s and are cut; raise") == 1


def test_long_clips_are_split_in_training(store, tmp_path, caplog):
    file = write(tmp_path, "film0,0,2,x", "film1,3,14,y", "film2,,,z", "film3,25,40,late")
    lengths = {"max_video_tokens": None, "max_audio_frames": None, "max_seconds": 6.4}
    data = CaptionedVideos(file, validation=file, store=store, split_long=True, **lengths)
    clips = data.clips("train")
    assert [(round(c.start, 1), round(c.end, 1), c.text) for c in clips.captions] == [
        (0, 2, "x"),
        *((3, 8.5, "y"), (8.5, 14, "y")),
        *((6 * n, 6 * n + 6, "z") for n in range(5)),
        (25, 40, "late"),
    ]
    assert all(len(clip["audio"]) for clip in clips)
    assert len(data.clips("validation")) == 4
    assert "train:" not in caplog.text


def test_an_open_end_is_the_end_of_the_film(store, tmp_path):
    file = write(tmp_path, "film0,25,,x", "film1,3,,x", "film1,6,,y")
    data = CaptionedVideos(file, store=store, max_video_tokens=40, max_audio_frames=4000)
    clips = data.clips("train")
    times = [(c.start, round(c.end, 1)) for c in clips.captions]
    assert times == [(25, 30), (3, 6), (6, 30)]
    assert clips.ids == ["film0@25-", "film1@3-6", "film1@6-"]
    assert [len(clip["audio"]) for clip in clips] == [502, 300, 2402]


@pytest.mark.parametrize(
    ("fields", "tokens", "frames", "ends"),
    [
        (("audio",), 2, 600, (6, 12)),
        (("2d",), 6, 200, (6, 12)),
        (("2d", "audio"), 6, 400, (4, 8, 12)),
        (("depth",), 2, 200, (12,)),
    ],
    ids=["audio", "2d", "both", "depth"],
)
def test_only_features_that_there_are_limit_a_clip(tmp_path, caplog, fields, tokens, frames, ends):
    """A field of its own, such as depth, is not cut."""
    known = FIELDS | {"depth": Field(2, 2.0)}
    with StoreWriter(tmp_path / "store", {name: known[name] for name in fields}, "w") as writer:
        rows = {n: np.ones((int(30 * known[n].per_second), known[n].width)) for n in fields}
        writer.add("a", rows, {})
    file = write(tmp_path, "a,0,12,x")
    limits = {"max_video_tokens": tokens, "max_audio_frames": frames}
    given = {"validation": file, "store": str(tmp_path / "store"), "split_long": True, **limits}
    data = CaptionedVideos(file, **given)
    assert tuple(round(c.end, 1) for c in data.clips("train").captions) == ends
    data.clips("validation")
    cut = f"validation: 1 of 1 clips are longer than {ends[0]}.0 s and are cut"
    assert (cut in caplog.text) == (len(ends) > 1)


def test_neighbours_are_in_the_same_batch_in_training_alone(store, tmp_path):
    file = write(tmp_path, *(f"film{n // 4},{n % 4},{n % 4 + 1},x" for n in range(16)))
    data = CaptionedVideos(train=file, validation=file, store=store, neighbours=4)
    clips = data.clips("train")
    assert (clips.group, data.clips("validation").group) == (4, 1)
    for batch in EpochBatchSampler(len(clips), 8, 0, group=clips.group):
        films = [clips.captions[i].video for i in batch]
        assert sorted(map(films.count, {*films})) == [4, 4]
    assert CaptionedVideos(train=file, store=store).clips("train").group == 1


def test_clips_of_a_film_of_the_built_in_corpus_are_in_the_same_batch():
    clips = demo(films=2, neighbours=8).clips("train")
    for batch in EpochBatchSampler(len(clips), 8, 0, group=clips.group):
        assert len({clips.captions[i].video for i in batch}) == 1


@pytest.mark.parametrize("number", [0, -1])
def test_there_is_at_least_one_neighbour_the_clip_itself(number):
    with pytest.raises(ValueError, match=f"data.neighbours must be at least 1; got {number}"):
        CaptionedVideos(neighbours=number)
