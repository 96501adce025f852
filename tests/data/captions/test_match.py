import json

import pytest

from fusion.data.captions.match import find_captions
from fusion.data.captions.table import Caption, CaptionError
from tests.data.captions.caption_fixtures import entry, write


def folder_of(tmp_path, *names):
    """Make a folder of subtitle files that say their own name."""
    for name in names:
        write(tmp_path, f"WEBVTT\n\n00:01.000 --> 00:02.000\n{name}\n", name)
    return tmp_path


def found(folder, *videos):
    return {
        video: " ".join(caption.text for caption in captions)
        for video, captions in find_captions(folder, videos).items()
    }


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        (["a.vtt"], "a.vtt"),
        (["a.srt"], "a.srt"),
        (["a.mp4.vtt"], "a.mp4.vtt"),
        (["a.de.vtt"], "a.de.vtt"),
        (["a.srt", "a.vtt", "a.txt"], "a.vtt"),
        (["a.de.vtt", "a.en.vtt", "a.fr.vtt"], "a.en.vtt"),
        (["a.de.vtt", "a.en.srt"], "a.en.srt"),
        (["a.en-orig.vtt", "a.en.vtt", "a.vtt"], "a.en.vtt"),
        (["a.de.vtt", "a.en-US.vtt"], "a.en-US.vtt"),
        (["a.de.vtt", "a.vtt"], "a.vtt"),
        (["captions/a.en.vtt", "b.vtt"], "captions/a.en.vtt"),
        (["captions/a.en.vtt", "a.de.vtt"], "a.de.vtt"),
        (["a.part2.vtt", "a.srt"], "a.srt"),
        (["a.mov.vtt", "a.srt"], "a.srt"),
    ],
)
def test_a_video_gets_the_caption_file_of_its_name(tmp_path, files, chosen):
    assert found(folder_of(tmp_path, *files), "a.mp4") == {"a.mp4": chosen}


def test_videos_of_the_same_name_get_the_captions_beside_them(tmp_path):
    folder = folder_of(tmp_path, "x/a.en.vtt", "y/a.vtt", "b.c.vtt", "b.vtt", "e.vtt")
    videos = ["x/a.mp4", "y/a.mp4", "b.c.mp4", "b.mp4", "d.mp4", "e.mp4", "e.webm"]
    expected = ["x/a.en.vtt", "y/a.vtt", "b.c.vtt", "b.vtt", "", "e.vtt", "e.vtt"]
    assert found(folder, *videos) == dict(zip(videos, expected, strict=True))


@pytest.mark.parametrize(
    ("files", "videos", "message"),
    [
        (["a.de.vtt", "a.fr.vtt"], ["a.mp4"], "a.mp4: which of .*a.de.vtt, .*a.fr.vtt is meant"),
        (["a.en-GB.vtt", "a.en-US.vtt"], ["a.mp4"], "which of .*a.en-GB.vtt, .*a.en-US.vtt"),
        (["x/a.vtt", "y/a.vtt"], ["a.mp4"], "which of .*x/a.vtt, .*y/a.vtt is meant"),
        (["z/a.vtt"], ["x/a.mp4", "y/a.mp4"], "z/a.vtt: a may be x/a.mp4 or y/a.mp4; name it in"),
        (["b.vtt"], ["a.mp4"], r"no captions of \['a.mp4'\]; in a folder, name their files like"),
        ([], [], r"no captions of \[\]"),
    ],
)
def test_an_unclear_choice_is_an_error(tmp_path, files, videos, message):
    with pytest.raises(CaptionError, match=message):
        find_captions(folder_of(tmp_path, *files), videos)


def test_captions_of_a_file_go_to_the_videos_they_name(tmp_path):
    rows = [entry(video=name, text=name) for name in ["a", "x/b", "c.mp4", "d", "x/a"]]
    path = write(tmp_path, json.dumps(rows), "all.json")
    videos = ["a.mp4", "x/b.mp4", "c.mp4", "y/d.webm", "e.mp4"]
    expected = ["a", "x/b", "c.mp4", "d", ""]
    assert found(path, *videos) == dict(zip(videos, expected, strict=True))
    assert found(path, "x/c.mp4", "c.mp4") == {"x/c.mp4": "", "c.mp4": "c.mp4"}
    assert find_captions(path, ["a.mp4"])["a.mp4"] == [Caption("a.mp4", 1, 2.5, "a")]
    with pytest.raises(
        CaptionError, match="all.json: a may be x/a.mp4 or y/a.mp4; name it in full"
    ):
        find_captions(path, ["x/a.mp4", "y/a.mp4"])
    with pytest.raises(CaptionError, match="no captions of"):
        find_captions(path, ["z.mp4"])


def test_a_subtitle_file_belongs_to_the_only_video_or_to_that_of_its_name(tmp_path):
    path = folder_of(tmp_path, "a.en.vtt") / "a.en.vtt"
    assert found(path, "film.mp4") == {"film.mp4": "a.en.vtt"}
    assert found(path, "film.mp4", "a.mp4") == {"film.mp4": "", "a.mp4": "a.en.vtt"}
    with pytest.raises(CaptionError, match="no captions of"):
        find_captions(path, ["film.mp4", "b.mp4"])
