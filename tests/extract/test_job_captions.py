import shutil

import pytest

from fusion.data.captions.formats import read_caption_file
from fusion.extract.job import extract
from tests.extract.tiny import TINY


def test_captions_are_written_for_the_videos_in_the_store(films, tmp_path, capsys):
    (tmp_path / "captions.csv").write_text(
        "video,start,end,text\n"
        'a.mp4,0.5,1.25,"a dog, jumping"\n'
        "long,1,2,by a short name\n"
        "empty.mp4,0,1,of a bad file\n"
        "other.mp4,0,1,of nothing\n"
    )
    extract([films], tmp_path / "store", TINY, captions=tmp_path / "captions.csv")
    written = read_caption_file(tmp_path / "store/captions.csv")
    assert [(c.video, c.start, c.end, c.text) for c in written] == [
        ("a.mp4", 0.5, 1.25, "a dog, jumping"),
        ("b/long.mp4", 1.0, 2.0, "by a short name"),
    ]
    said = capsys.readouterr().err
    assert "captions.csv: 2 captions of 2 videos" in said
    assert "of no video in the store: 2 captions (empty.mp4, other.mp4)" in said
    assert "without captions: 2 videos of the store (b/silent.mp4, blind.mp4)" in said


def test_captions_of_whole_videos_come_back_as_such(films, tmp_path):
    (tmp_path / "test.csv").write_text("key,video_id,sentence\n0,a,a dog\n1,long,a cat\n2,a,two\n")
    extract([films], tmp_path / "store", TINY, captions=tmp_path / "test.csv")
    file = tmp_path / "store/captions.csv"
    assert file.read_text().splitlines()[1] == "a.mp4,,,a dog"
    written = read_caption_file(file)
    assert [c.video for c in written] == ["a.mp4", "a.mp4", "b/long.mp4"]
    assert all(caption.is_whole for caption in written)


def test_csv_files_are_found_by_their_names(films, tmp_path, capsys):
    (tmp_path / "asr").mkdir()
    for name in ("a.csv", "stranger.csv"):
        (tmp_path / "asr" / name).write_text("start,end,text\n0.5,1.25,hello\n")
    (tmp_path / "asr" / "list.csv").write_text("video_path\na.mp4\n")
    extract([films], tmp_path / "store", TINY, captions=tmp_path / "asr")
    assert [c.video for c in read_caption_file(tmp_path / "store/captions.csv")] == ["a.mp4"]
    assert "of no video in the store: 1 caption file (stranger.csv)" in capsys.readouterr().err


def test_subtitle_files_are_found_beside_the_films(films, tmp_path, capsys):
    shutil.copytree(films, tmp_path / "films")
    cue = "WEBVTT\n\n00:00:01.000 --> 00:00:02.500\nhello\n"
    for name in ("a.en.vtt", "b/long.mp4.vtt", "empty.vtt", "b/stranger.vtt"):
        (tmp_path / "films" / name).write_text(cue)
    store = tmp_path / "store"
    extract([tmp_path / "films"], store, TINY, captions=tmp_path / "films")
    assert [c.video for c in read_caption_file(store / "captions.csv")] == ["a.mp4", "b/long.mp4"]
    assert "of no video in the store: 2 caption files" in capsys.readouterr().err


def test_a_wrong_caption_file_is_said_before_the_work(films, tmp_path):
    (tmp_path / "captions.csv").write_text("video,start,end\n")
    with pytest.raises(ValueError, match="no column text"):
        extract([films], tmp_path / "store", TINY, captions=tmp_path / "captions.csv")
    assert not (tmp_path / "store").exists()


def test_bad_captions_are_said_once_and_limited_by_the_option(films, tmp_path, caplog):
    rows = "".join(f"a.mp4,{i % 2},{i % 2 + 0.5},words\n" for i in range(9))
    path = tmp_path / "captions.csv"
    path.write_text(f"video,start,end,text\n{rows}a.mp4,1,0.5,backwards\n")
    path.write_text(path.read_text() + "a.mp4,1,0.5,backwards\n" * 5)
    with pytest.raises(ValueError, match=r"more than --max-bad \(0.05\) .* or raise --max-bad$"):
        extract([films], tmp_path / "store", TINY, captions=path)
    extract([films], tmp_path / "store", TINY, captions=path, max_bad=0.5)
    assert len(read_caption_file(tmp_path / "store/captions.csv")) == 9
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == len(set(said)) == 1
