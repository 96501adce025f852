"""From files to a store and a report."""

import json
import os
import shutil

import numpy as np
import pytest
import torch

from fusion.data.features.store import FeatureStore
from fusion.data.features.writer import StoreWriter
from fusion.data.media.film import Film
from fusion.data.media.log_mel import log_mel
from fusion.data.media.window import read_audio
from fusion.extract import job
from fusion.extract.films import FilmRows
from fusion.extract.job import extract, find_videos
from fusion.extract.networks import BACKBONES_2D
from fusion.extract.settings import Features
from tests.data.media.films import write_film
from tests.extract.tiny import TINY, content, tiny_2d, tiny_backbones


def test_a_store_has_the_rows_that_rates_and_durations_lead_to(done, films):
    store = FeatureStore(done[0])
    assert {n: (f.width, f.per_second) for n, f in store.fields.items()} == {
        "2d": (6, 1.0), "3d": (6, 1.5), "audio": (40, 100.0),
    }  # fmt: skip
    assert list(store.videos) == ["a.mp4", "b/long.mp4", "b/silent.mp4", "blind.mp4"]
    rows = {v: [store.rows(v, field) for field in store.fields] for v in store.videos}
    assert rows == {
        "a.mp4": [3, 5, 301], "b/long.mp4": [9, 14, 901],
        "b/silent.mp4": [2, 3, 0], "blind.mp4": [0, 0, 201],
    }  # fmt: skip
    expected = log_mel(torch.from_numpy(read_audio(films / "a.mp4"))).half()
    torch.testing.assert_close(store.read("a.mp4", "audio"), expected, rtol=0, atol=0.07)
    assert not list(done[0].rglob("*.new-*"))


def test_features_are_those_of_the_pictures(done, films):
    """As they leave the network: nothing is normalised."""
    backbone = tiny_backbones()["2d"]
    pieces = [p.data for p in Film(films / "a.mp4", {"2d": backbone.sampling}, False).pieces()]
    expected = backbone.compute(torch.from_numpy(np.concatenate(pieces))[:, None]).half()
    assert torch.equal(FeatureStore(done[0]).read("a.mp4", "2d"), expected)


def test_facts_say_where_features_come_from(done, films):
    facts = FeatureStore(done[0]).facts("b/silent.mp4")
    state = (films / "b/silent.mp4").stat()
    assert facts["duration"] == pytest.approx(2.0, abs=0.05)
    assert (facts["size"], facts["mtime"]) == (state.st_size, int(state.st_mtime))
    assert facts["networks"] == {"2d": "tiny", "3d": "tiny"}
    assert facts["weights"].keys() == {"2d", "3d"}
    assert facts["problems"] == ["no sound"]
    assert "warning" not in facts


def test_the_report_names_every_file_and_what_came_out_of_it(done):
    store, report = done
    assert (report.usable, report.exit_code, report.complete) == (4, 0, True)
    written = json.loads((store / "report.json").read_text())
    lines = {line["video"]: line for line in written["files"]}
    assert {v: line["state"] for v, line in lines.items()} == {
        "a.mp4": "ok", "b/long.mp4": "ok", "b/silent.mp4": "ok", "blind.mp4": "ok",
        "empty.mp4": "failed", "half.mp4": "failed",
    }  # fmt: skip
    assert lines["a.mp4"]["rows"] == {"2d": 3, "3d": 5, "audio": 301}
    assert lines["empty.mp4"]["problems"][0].startswith("empty (")  # and no path of this machine
    assert str(store.parent) not in (store / "report.json").read_text()
    text = (store / "report.txt").read_text()
    assert "6 files: 4 ok, 0 partial, 2 failed" in text
    for line in lines.values():
        assert line["video"] in text


def test_work_that_is_done_is_not_done_again(done, films, capsys, monkeypatch):
    before = content(done[0])
    shards = sorted((done[0] / "shards").iterdir())

    def refuse(self, path, samplings, audio):
        raise AssertionError

    monkeypatch.setattr(FilmRows, "push", refuse)
    report = extract([films], done[0], TINY)
    assert "4 of 6 files are done already" in capsys.readouterr().err
    assert report == done[1]
    assert content(done[0]) == before
    assert sorted((done[0] / "shards").iterdir()) == shards


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (Features("other", "tiny"), r"was made with 2d: \(tiny, .*\), and not with \(other, "),
        (Features("none", "tiny"), r"was made with 2d: \(tiny, .*\), and not with nothing"),
        (Features("tiny", "tiny", audio=False), r"was made with audio: \(log_mel 1\), and not"),
    ],
)
def test_other_settings_than_those_of_the_store_are_refused(
    done, films, monkeypatch, features, message
):
    monkeypatch.setitem(BACKBONES_2D, "other", tiny_2d)
    before = content(done[0])
    with pytest.raises(ValueError, match=message) as error:
        extract([films], done[0], features)
    assert "another --out" in str(error.value) and "\n" not in str(error.value)
    assert content(done[0]) == before


def test_a_store_of_other_origin_is_refused(films, tmp_path):
    with StoreWriter(tmp_path, {"2d": job.fields_of({}, True)["audio"]}, "other"):
        pass
    with pytest.raises(ValueError, match="is not of fusion extract: no extraction.json"):
        extract([films], tmp_path, TINY)


def test_a_place_that_is_taken_is_refused(films, tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match="notes.txt is a file; --out names the folder of the st"):
        extract([films], tmp_path / "notes.txt", TINY)
    with pytest.raises(ValueError, match="has other files, such as notes.txt; name a new or an"):
        extract([films], tmp_path, TINY)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_a_file_that_has_changed_since_is_named_and_its_features_are_kept(tmp_path, capsys):
    write_film(tmp_path / "films/a.mp4", 1)
    extract([tmp_path / "films"], tmp_path / "store", TINY)
    before = content(tmp_path / "store")
    write_film(tmp_path / "films/a.mp4", 2)
    report = extract([tmp_path / "films"], tmp_path / "store", TINY)
    assert content(tmp_path / "store") == before
    (line,) = report.files
    assert line.problems[-1].startswith(
        "changed since: the store keeps the features of the earlier"
    )


def test_where_nothing_can_be_used_the_exit_code_is_1(films, tmp_path, monkeypatch):
    bad = [films / "empty.mp4", films / "half.mp4"]
    report = extract(bad, tmp_path / "store", TINY)
    assert (report.usable, report.exit_code) == (0, 1)
    monkeypatch.setenv("WORLD_SIZE", "2")  # an error would have a launcher stop the other one
    assert extract(bad, tmp_path / "store", TINY).exit_code == 0


def test_features_that_are_not_finite_cost_the_film(films, tmp_path, monkeypatch):
    class Broken(torch.nn.Module):
        def forward(self, x):
            return torch.full((len(x), 6), torch.nan)

    def broken(name, source):
        backbone = tiny_2d(name, source)
        backbone.network = Broken()
        return backbone

    monkeypatch.setitem(BACKBONES_2D, "broken", broken)
    report = extract([films], tmp_path / "store", Features("broken", "none"))
    states = {line.video: line for line in report.files}
    assert states["a.mp4"].state == "failed"
    assert "must be finite" in states["a.mp4"].problems[0]
    assert states["blind.mp4"].state == "ok"


def test_sound_can_be_left_out(films, tmp_path):
    features = Features("none", "tiny", audio=False)
    report = extract([films / "a.mp4", films / "blind.mp4"], tmp_path / "store", features)
    assert list(FeatureStore(tmp_path / "store").fields) == ["3d"]
    assert [(line.state, line.problems) for line in report.files] == [
        ("ok", ()),
        ("failed", ("nothing to extract: no picture; check the file",)),
    ]


def test_random_weights_are_said_loudly_everywhere(films, tmp_path, capsys):
    features = Features("tiny", "none", random_weights=True)
    extract([films / "a.mp4"], tmp_path / "store", features)
    assert "!!! the weights are random: these features mean nothing" in capsys.readouterr().err
    facts = FeatureStore(tmp_path / "store").facts("a.mp4")
    assert facts["warning"].startswith("the weights are random")
    assert facts["weights"] == {"2d": "random"}
    assert "warning" in json.loads((tmp_path / "store/extraction.json").read_text())


def test_a_film_that_needs_too_much_memory_costs_that_film(films, tmp_path, monkeypatch):
    class Greedy(torch.nn.Module):
        def forward(self, x):
            raise torch.OutOfMemoryError("CUDA out of memory")

    def greedy(name, source):
        backbone = tiny_2d(name, source)
        backbone.network = Greedy()
        return backbone

    monkeypatch.setitem(BACKBONES_2D, "greedy", greedy)
    report = extract([films], tmp_path / "store", Features("greedy", "none"))
    lines = {line.video: line for line in report.files}
    assert lines["a.mp4"].problems == (
        "out of memory: its pictures are too large; scale the film down",
    )
    assert lines["blind.mp4"].state == "ok"


def test_files_may_be_called_anything(tmp_path, capsys):
    names = [
        "with space.mp4",
        "new\nline.mp4",
        "\N{SNOWMAN}.mp4",
        "-x.mp4",
        "a:b.mp4",
        "\udcff.mp4",
    ]
    first = write_film(tmp_path / "films" / names[0], 0.5)
    for name in names[1:]:
        shutil.copy(first, tmp_path / "films" / name)
    report = extract([tmp_path / "films"], tmp_path / "store", Features("tiny", "none"))
    failed = {line.video: line.problems for line in report.files if line.state == "failed"}
    assert failed == {"\udcff.mp4": ("its name is not UTF-8; rename it",)}
    assert len(report.files) == len(names)
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(names) + 2


# Which files are extracted.


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def test_a_folder_is_searched_and_names_are_relative_to_it(tmp_path):
    touch(tmp_path, "b.MP4", "a/c.mkv", "a/deep/d.mp3", "notes.txt", "a/subtitles.vtt")
    touch(tmp_path, "._b.MP4", ".hidden/e.mp4")
    found = find_videos([tmp_path])
    assert list(found) == ["a/c.mkv", "a/deep/d.mp3", "b.MP4"]
    assert found["a/c.mkv"] == tmp_path / "a" / "c.mkv"


def test_the_common_folder_of_all_places_is_what_names_are_relative_to(tmp_path):
    touch(tmp_path, "x/a.mp4", "y/z/b.mp4", "y/z/notes.odd")
    assert list(find_videos([tmp_path / "x", tmp_path / "y" / "z"])) == ["x/a.mp4", "y/z/b.mp4"]
    assert list(find_videos([tmp_path / "x" / "a.mp4"])) == ["a.mp4"]
    assert list(find_videos([tmp_path / "x" / "a.mp4", tmp_path / "x"])) == ["a.mp4"]
    assert list(find_videos([tmp_path / "y/z/notes.odd"])) == ["notes.odd"]  # named itself
    assert list(find_videos([tmp_path / "x"], root=tmp_path)) == ["x/a.mp4"]
    with pytest.raises(ValueError, match=r"a.mp4 is not in the folder .*y; give another --root"):
        find_videos([tmp_path / "x"], root=tmp_path / "y")


def test_the_store_is_not_searched_and_links_in_circles_end(tmp_path):
    touch(tmp_path, "a.mp4", "store/shards/b.mp4", "real/c.mp4")
    os.symlink(tmp_path, tmp_path / "real" / "up")
    found = find_videos([tmp_path], leave_out=tmp_path / "store")
    assert list(found) == ["a.mp4", "real/c.mp4"]


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(ValueError, match="none: no such file or folder; check the path"):
        find_videos([tmp_path / "none"])
    with pytest.raises(ValueError, match="no media file in this folder"):
        find_videos([tmp_path])
