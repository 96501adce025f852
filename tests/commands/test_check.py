import json

import numpy as np
import pytest

from fusion.cli.main import main
from fusion.data.datasets.captioned import CaptionedVideos
from fusion.data.features.format import Field
from fusion.data.features.store import ROOT
from fusion.data.features.writer import StoreWriter
from tests.data.media.films import write_film

ONE = np.ones((1, 3), np.float32)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    for name in ("a.mp4", "b.mp4"):
        write_film(folder / name, seconds=1.0)
    (folder / "broken.mp4").write_bytes(b"no film")
    return folder


def check(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        main(["check", *map(str, words)])
    return stop.value.code, capsys.readouterr().out


def write(folder, *rows, head="video;start;end;text"):
    path = folder / "captions.csv"
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


def test_every_mistake_is_listed_at_once(films, tmp_path, capsys):
    path = write(
        tmp_path,
        "a;0,5;1;a dog",
        "a;1;0,5;a cat",
        "b;soon;1;a dog",
        "b;0;1;a dog;a cat",
        "b;5;6;too late",
        "broken;0;1;a dog",
        "none.mp4;0;1;a dog",
        ";0;1;a dog",
    )
    code, text = check(capsys, path, "--videos", films)
    assert code == 1
    for mistake in [
        "line 3: end (0,5) is not after start (1)",
        "line 4: start is 'soon', not a number",
        "line 5: 5 fields in 4 columns",
        "line 9: video is ''",
        "b.mp4@5-6: begins after the end of its film (1.0 s)",
        "broken.mp4: no media file",
        f"none.mp4: no such film in {films} (1 caption); name it relative to the caption file",
    ]:
        assert mistake in text
    assert "guessed: separator ';'; decimal commas" in text
    assert text.splitlines()[-1].startswith(f"{path}: 4 captions of 4 films, ")
    assert text.splitlines()[-1].endswith("; 7 mistakes")


def test_a_good_file_is_counted(films, tmp_path, capsys):
    code, text = check(capsys, write(tmp_path, "a;0;1;x", "a;0.5;;y"), "--videos", films)
    assert code == 0
    assert "2 captions of 1 film, 1.5 s; 0 mistakes" in text
    assert "an end that is missing is the start of the film's next caption" in text


def test_a_name_that_is_too_long_is_a_film_that_is_missing(films, tmp_path, capsys):
    code, text = check(capsys, write(tmp_path, "a;0;1;x", f"{'n' * 400};0;1;y"), "--videos", films)
    assert code == 1
    assert f"nnn: no such film in {films} (1 caption)" in text
    assert text.splitlines()[-1].endswith("; 1 mistake")


SRT = """1
00:00:00,000 --> 00:00:01
a dog

2
00:00:01,000 -> 00:00:02,000
a cat

3
0:0 --> soon
a cow

4
00:00:02,x --> 00:00:03,000
a horse
"""
ROWS = [{"video": "a", "text": "x"}, {"video": "a"}, {"text": "x"}, 7]


@pytest.mark.parametrize(
    ("name", "content", "mistakes"),
    [
        ("a.srt", SRT, ["line 10: '0:0 --> soon' are no times", "line 14: '00:00:02,x -->"]),
        ("b.json", json.dumps(ROWS), [f"entry {n}: " for n in (2, 3, 4)]),
        (
            "c.json",
            json.dumps({v: {"start": [0], "end": [1], "text": []} for v in "ab"}),
            [f"video {v!r}: " for v in "ab"],
        ),
        ("d.csv", "video,start,end,text\na,1,0,x\na,2,1,y\n", ["line 2: end", "line 3: end"]),
        ("e.vtt", "", ["e.vtt: the file is empty"]),
    ],
)
def test_every_mistake_of_every_format_is_listed(films, tmp_path, capsys, name, content, mistakes):
    (tmp_path / name).write_text(content)
    code, text = check(capsys, tmp_path / name, "--videos", films)
    assert code == 1
    for mistake in mistakes:
        assert mistake in text
    assert f"; {len(mistakes)} mistake" in text.splitlines()[-1]


def test_a_bad_file_of_a_folder_does_not_hide_the_next(films, tmp_path, capsys):
    (tmp_path / "a.srt").write_text("no times")
    (tmp_path / "b.vtt").write_text("no header")
    _, text = check(capsys, tmp_path, "--videos", films)
    assert "a.srt: no times such as" in text and "'no header' is not WEBVTT" in text
    assert text.splitlines()[-1].endswith("; 2 mistakes")


def test_a_film_without_captions_file_is_a_mistake(tmp_path, capsys):
    code, text = check(capsys, tmp_path / "none.csv")
    assert code == 1
    assert "none.csv: no such file; check the path" in text


@pytest.mark.parametrize(
    ("place", "name"), [("films", "a"), ("films", "a.mp4"), (".", "films/a.mp4"), ("other", "a")]
)
def test_a_film_is_found_beside_or_below_the_root(tmp_path, place, name):
    """With and without ending, as a file and in a store; the folder that has it comes first."""
    (tmp_path / "films").mkdir()
    (tmp_path / "other").mkdir()
    write_film(tmp_path / "films" / "a.mp4", seconds=1.0)
    file = str(write(tmp_path / place, f"{name};0;0.9;x"))
    root = str(tmp_path / "films")
    captions = CaptionedVideos(file, root=root).clips("train").captions
    assert captions[0].video == ("films/a.mp4" if place == "." else "a.mp4")
    store = tmp_path / "store"
    with StoreWriter(store, {"2d": Field(3, 1.0)}, name="w") as writer:
        for video in ("a.mp4", "films/b.mp4"):
            writer.add(video, {"2d": ONE}, {})
    (store / ROOT).write_text(f"{root}\n")
    clips = CaptionedVideos(file, store=str(store), root=root).clips("train")
    assert clips.captions[0].video == "a.mp4"
    assert len(clips[0]["video"]) == 1


def test_beside_the_caption_file_comes_before_the_root(tmp_path):
    for folder in ("films", "films/part"):
        (tmp_path / folder).mkdir()
        write_film(tmp_path / folder / "a.mp4", seconds=1.0)
    file = str(write(tmp_path / "films/part", "a.mp4;0;0.9;x"))
    data = CaptionedVideos(file, root=str(tmp_path / "films"))
    clips = data.clips("train")
    assert clips.folder / clips.captions[0].video == tmp_path / "films/part/a.mp4"
    store = tmp_path / "store"
    with StoreWriter(store, {"2d": Field(3, 1.0)}, name="w") as writer:
        for video in ("a.mp4", "part/a.mp4"):
            writer.add(video, {"2d": ONE}, {})
    (store / ROOT).write_text(f"{tmp_path / 'films'}\n")
    found = CaptionedVideos(file, store=str(store)).clips("train")
    assert found.captions[0].video == "part/a.mp4"
