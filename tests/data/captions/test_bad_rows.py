"""Rows that cannot be used do not take the others with them, whatever the format."""

import json
from pathlib import Path

import pytest

from fusion.commands.check import check_captions
from fusion.data.captions.formats import read_caption_file
from fusion.data.captions.match import find_captions, read_all
from fusion.data.captions.table import CaptionError
from fusion.data.datasets import CaptionedVideos
from fusion.data.features.problems import NAMED
from tests.data.captions.caption_fixtures import entry, write
from tests.data.captions.test_annotations import make_store

TEXTS = Path(__file__).parents[2] / "cases" / "text"
HEAD = "video,start,end,text\n"


def test_a_cue_of_no_length_is_named_and_the_two_others_are_read(caplog):
    captions = read_caption_file(TEXTS / "zero_length.srt")
    assert [caption.text for caption in captions] == ["first tone", "second tone"]
    assert "zero_length.srt, line 6: end (2.0) is not after start (2.0)" in caplog.text
    assert "1 of 3 captions cannot be used (33%); left out" in caplog.text


def test_a_cue_of_no_length_is_named_by_fusion_check_too(capsys):
    assert check_captions(TEXTS / "zero_length.srt") == 1
    assert "line 6: end (2.0) is not after start (2.0)" in capsys.readouterr().out


def srt(*cues):
    return "".join(f"{n}\n{times}\n{text}\n\n" for n, (times, text) in enumerate(cues, 1))


GOOD_CUES = [("00:00:01,000 --> 00:00:02,000", "one"), ("00:00:03,000 --> 00:00:04,000", "two")]
GOOD_ROWS = ["a,1,2,one", "a,3,4,two"]
GOOD_ENTRIES = [entry(text="one"), entry(start=3, end=4, text="two")]
CASES = {  # a bad row in the middle of two good ones
    "an end before the start in srt": ("a.srt", ("00:00:03,000 --> 00:00:02,000", "x")),
    "no times in srt": ("a.srt", ("00:00:0x,000 --> 00:00:02,000", "x")),
    "no length in vtt": ("a.vtt", ("00:00:02.000 --> 00:00:02.000", "x")),
    "an end before the start in csv": ("a.csv", "a,3,2,x"),
    "no length in csv": ("a.csv", "a,3,3,x"),
    "a start that is no time in csv": ("a.csv", "a,soon,3,x"),
    "a start that is missing in csv": ("a.csv", "a,,3,x"),
    "a row without its last columns": ("a.csv", "a,3"),
    "a row with too many columns": ("a.csv", "a,3,4,a dog, a cat"),
    "a quote that is never closed": ("a.csv", 'a,3,4,"x'),
    "a quote inside a text": ("a.csv", 'a,3,4,"x" y'),
    "an end before the start in tsv": ("a.tsv", "a,3,2,x"),
    "no text in json": ("a.json", {"video": "a", "start": 1, "end": 2}),
    "null as the text in json": ("a.json", entry(text=None)),
    "null as the start in json": ("a.json", entry(start=None)),
    "an entry that is a number": ("a.json", 3),
    "no length in json": ("a.json", entry(start=2, end=2)),
}


def make_file(folder, name, bad, copies=1):
    if name.endswith((".srt", ".vtt")):
        content = srt(GOOD_CUES[0], *[bad] * copies, GOOD_CUES[1])
        content = "WEBVTT\n\n" * name.endswith("vtt") + content.replace(",", ".")
    elif name.endswith(".json"):
        content = json.dumps([GOOD_ENTRIES[0], *[bad] * copies, GOOD_ENTRIES[1]])
    else:
        content = HEAD + "\n".join([GOOD_ROWS[0], *[bad] * copies, GOOD_ROWS[1]]) + "\n"
        content = content.replace(",", "\t") if name.endswith(".tsv") else content
    return write(folder, content, name)


@pytest.mark.parametrize(("name", "bad"), CASES.values(), ids=CASES)
def test_the_other_rows_are_read_and_the_bad_one_is_counted_and_named(tmp_path, caplog, name, bad):
    path = make_file(tmp_path, name, bad)
    assert [caption.text for caption in read_caption_file(path)] == ["one", "two"]
    assert f"{path}, " in caplog.text
    assert "1 of 3 captions cannot be used (33%); left out" in caplog.text
    with pytest.raises(CaptionError, match=r"1 of 3 captions .* data.max_bad \(0\) allows"):
        read_caption_file(path, max_bad=0)


@pytest.mark.parametrize(("name", "bad"), CASES.values(), ids=CASES)
def test_more_bad_rows_than_a_message_names_are_limited_by_their_share(tmp_path, name, bad):
    path = make_file(tmp_path, name, bad, NAMED + 1)
    with pytest.raises(CaptionError, match=r"6 of 8 captions cannot be used \(75%\); that is more"):
        read_caption_file(path)
    assert len(read_caption_file(path, max_bad=0.8)) == 2


def test_a_file_without_any_good_row_is_refused(tmp_path):
    path = write(tmp_path, HEAD + "a,3,2,x\n", "a.csv")
    with pytest.raises(CaptionError, match="1 of 1 captions cannot be used"):
        read_caption_file(path)


def test_an_empty_subtitle_file_in_a_folder_is_named_and_the_other_films_are_read(tmp_path, caplog):
    """Speech recognisers write an empty file for a silent film."""
    write(tmp_path, srt(*GOOD_CUES), "a.srt")
    write(tmp_path, "", "silent.srt")
    write(tmp_path, "WEBVTTT", "b.vtt").write_text("<html>")
    assert [c.text for c in read_all(tmp_path, ["a.mp4", "silent.mp4"])] == ["one", "two"]
    assert "silent.srt: the file is empty" in caplog.text
    assert "2 of 4 captions cannot be used" in caplog.text
    found = find_captions(tmp_path, ["a.mp4", "silent.mp4"])
    assert [len(captions) for captions in found.values()] == [2, 0]
    (tmp_path / "a.srt").unlink()
    with pytest.raises(CaptionError, match=r"b.vtt, line 1: '<html>' is not WEBVTT"):
        read_all(tmp_path, ["a.mp4"])


def test_captions_without_text_are_counted_and_named(tmp_path, caplog):
    rows = write(tmp_path, HEAD + "a,1,2,one\na,2,3,\n", "a.csv")
    assert [caption.text for caption in read_caption_file(rows)] == ["one", ""]
    assert f"1 caption without text ({rows}, line 3)" in caplog.text
    cues = write(tmp_path, srt(*GOOD_CUES, ("00:00:05,000 --> 00:00:06,000", "<i></i>")), "a.srt")
    assert [caption.text for caption in read_caption_file(cues)] == ["one", "two"]
    assert f"1 caption without text ({cues}, line 10)" in caplog.text


@pytest.mark.parametrize("ending", ["csv", "tsv", "json", "srt", "vtt"])
def test_times_beyond_the_film_are_named_and_the_other_clips_are_kept(tmp_path, caplog, ending):
    """The film lasts 6 seconds: one caption begins after it, one ends long after it."""
    times = [(1, 4), (50, 60), (5, 9)]
    rows = [entry(start=start, end=end, text="x") for start, end in times]
    cues = srt(*((f"00:00:{a:02},000 --> 00:00:{b:02},000", "x") for a, b in times))
    table = HEAD + "".join(f"a,{start},{end},x\n" for start, end in times)
    content = {
        "csv": table,
        "tsv": table.replace(",", "\t"),
        "json": json.dumps(rows),
        "srt": cues,
        "vtt": "WEBVTT\n\n" + cues.replace(",", "."),
    }[ending]
    store = make_store(tmp_path / "store", ["a"])
    source = CaptionedVideos(test=write(tmp_path, content, f"a.{ending}"), store=store)
    assert source.clips("test").ids == ["a@1-4", "a@5-9"]
    assert "1 of 3 clips begin after the features" in caplog.text
    assert "1 of 3 clips end after their film, and are taken up to its end (a@5-9" in caplog.text


def test_f21_a_first_line_of_one_endless_field_is_one_line(tmp_path):
    """Found by ``python -m tests.fuzz csv``."""
    (tmp_path / "a.csv").write_text("video" + "x" * 200_000 + ",text\nv,a man\n")
    with pytest.raises(CaptionError) as caught:
        read_caption_file(tmp_path / "a.csv")
    assert str(caught.value).startswith(f"{tmp_path}/a.csv") and "\n" not in str(caught.value)
