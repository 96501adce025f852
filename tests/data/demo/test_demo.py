"""The files of the built-in corpus: a small one is rendered."""

import csv
import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import av
import numpy as np
import pytest

from fusion.data.demo import CorpusError, corpus, demo_corpus
from fusion.data.demo.film import scene_frames, write_film
from fusion.data.demo.plan import SPLITS
from fusion.data.demo.sounds import SAMPLE_RATE
from fusion.data.demo.versions import RECIPES, VERSION, plan_corpus


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return demo_corpus(tmp_path_factory.mktemp("cache"), jobs=1, size=1)


@pytest.fixture(scope="module", params=RECIPES, ids=lambda version: f"version {version}")
def of_version(small, request):
    if request.param == VERSION:
        return small, request.param
    return demo_corpus(small.parent, jobs=1, size=1, version=request.param), request.param


def digests(folder):
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.md5(p.read_bytes()).digest() for p in files}


def test_files_are_films_with_picture_and_sound_of_the_planned_length(of_version):
    small, version = of_version
    film = plan_corpus(1, version)[0]
    seconds = sum(scene.num_frames for scene in film.scenes) / 10
    with av.open(str(small / film.path)) as container:
        assert container.streams.video[0].codec_context.name in ("h264", "mpeg4")
        assert container.streams.audio[0].codec_context.name == "aac"
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with av.open(str(small / film.path)) as container:
        wave = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert len(frames) == round(seconds * 10)
    assert abs(len(wave) / SAMPLE_RATE - seconds) < 0.1
    drawn = scene_frames(film, 0, film.scenes[0])
    assert np.abs(frames[3].astype(float) - drawn[3]).mean() < 8


def test_films_without_a_stream_lack_it(tmp_path):
    films = plan_corpus(3)
    assert not films[1].has_audio_stream
    assert not films[2].has_video_stream
    for film, kinds in [(films[1], ["video"]), (films[2], ["audio"])]:
        write_film(film, tmp_path)
        with av.open(str(tmp_path / film.path)) as container:
            assert [stream.type for stream in container.streams] == kinds


def test_tables_name_the_files_and_agree_with_one_another(of_version):
    small, _ = of_version
    truth = list(csv.DictReader((small / "attributes.csv").open()))
    for split in SPLITS:
        rows = list(csv.DictReader((small / f"{split}.csv").open()))
        assert list(rows[0]) == ["video", "start", "end", "text"]
        assert all((small / row["video"]).is_file() for row in rows)
        own = [row for row in truth if row["split"] == split]
        assert [(r["video"], r["start"]) for r in own] == [(r["video"], r["start"]) for r in rows]
        assert [r["has_narration"] == "1" for r in own] == [bool(r["text"]) for r in rows]


def test_the_table_of_attributes_names_places_and_shots(of_version):
    small, version = of_version
    rows = list(csv.DictReader((small / "attributes.csv").open()))
    assert all(bool(row["place"]) == bool(row["shots"]) == (version == 3) for row in rows)
    scenes = [scene for film in plan_corpus(1, version) for scene in film.scenes]
    for row, scene in zip(rows, scenes, strict=True):
        shots = [shot.split() for shot in row["shots"].split("; ") if shot]
        assert shots == [
            [shot.place, str(shot.num_frames), *shot.values.values()]
            for shot in scene.shots
            if shot.place
        ]


def test_each_version_has_a_folder_of_its_own(of_version):
    folder, version = of_version
    assert folder.name == f"demo-v{version}-1"
    assert json.loads((folder / "version.json").read_text()) == {"version": version, "films": 3}


def test_the_number_of_processes_changes_nothing(of_version, tmp_path):
    folder, version = of_version
    again = demo_corpus(tmp_path, jobs=2, size=1, version=version)
    assert digests(again) == digests(folder)


def test_the_second_use_renders_nothing(small, monkeypatch):
    monkeypatch.setattr(corpus, "_render", None)
    assert demo_corpus(small.parent, size=1) == small


def test_sizes_have_folders_of_their_own(monkeypatch, tmp_path):
    monkeypatch.setattr(corpus, "_render", lambda folder, *rest: None)
    folders = {demo_corpus(tmp_path, size=size) for size in (1, 2)}
    assert len(folders) == 2
    monkeypatch.setattr(corpus, "_check_space", lambda *rest: None)
    assert demo_corpus(tmp_path) not in folders


def test_processes_at_the_same_time_render_once(tmp_path, monkeypatch):
    calls = []

    def render(folder, *rest):
        calls.append(folder)
        folder.mkdir()
        (folder / "version.json").write_text("{}")

    monkeypatch.setattr(corpus, "_render", render)
    threads = [threading.Thread(target=demo_corpus, args=(tmp_path, 1, 1)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1


# What goes wrong.


def failing(monkeypatch, error):
    """Make the last film fail."""

    def write(film, folder):
        if film.split == "test":
            raise error

    monkeypatch.setattr(corpus, "write_film", write)


def test_an_interrupted_rendering_leaves_nothing(tmp_path, monkeypatch):
    failing(monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        demo_corpus(tmp_path, jobs=1, size=1)
    assert [p.name for p in tmp_path.iterdir()] == [f"demo-v{VERSION}-1.lock"]


def test_what_a_killed_rendering_left_is_removed_and_not_used(tmp_path, monkeypatch):
    left = tmp_path / f"demo-v{VERSION}-1.new-abc" / "videos"
    left.mkdir(parents=True)
    monkeypatch.setattr(corpus, "write_film", lambda film, folder: None)
    folder = demo_corpus(tmp_path, jobs=1, size=1)
    assert sorted(p.name for p in tmp_path.iterdir()) == [folder.name, f"{folder.name}.lock"]


def test_a_disk_that_fills_up_is_one_line_with_place_and_way_out(tmp_path, monkeypatch):
    failing(monkeypatch, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    with pytest.raises(CorpusError, match=f"no space .*{tmp_path}.* takes 1 MB.*FUSION_CACHE") as e:
        demo_corpus(tmp_path, jobs=1, size=1)
    assert "\n" not in str(e.value)
    assert not (tmp_path / f"demo-v{VERSION}-1").exists()


def test_a_full_disk_is_noticed_before_rendering(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 3_000_000})
    monkeypatch.setattr(corpus.shutil, "disk_usage", lambda place: usage)
    with pytest.raises(CorpusError, match="takes 138 MB, 3 MB are free"):
        demo_corpus(tmp_path)


def test_a_worker_that_cannot_write_says_why(tmp_path):
    (tmp_path / "videos").write_text("not a folder")
    command = [sys.executable, "-m", "fusion.data.demo.worker", str(tmp_path), "3", "1", "0", "1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert done.stdout == f"error {errno.EEXIST}\n"


def test_errors_of_workers_reach_the_caller(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "write_tables", lambda films, folder: (folder / "videos").touch())
    with pytest.raises(FileExistsError):
        demo_corpus(tmp_path, jobs=2, size=1)
    assert not (tmp_path / f"demo-v{VERSION}-1").exists()


def test_a_worker_that_dies_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus.sys, "executable", "/bin/false")
    with pytest.raises(CorpusError, match=r"stopped early.*jobs=1"):
        demo_corpus(tmp_path, jobs=2, size=1)
