import functools
import json
import math
import pickle

import pytest

from fusion.data.captions.formats import captions_by_video, read_by_video, read_caption_file
from fusion.data.captions.match import find_captions
from fusion.data.captions.table import Caption, CaptionError, CaptionParser
from tests.data.captions.caption_fixtures import entry, write

CUE = "00:01.000 --> 00:02.000\nhello\n\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.vtt", "", "a.vtt: the file is empty; make or download it again"),
        ("a.srt", "\n \n", "a.srt: the file is empty"),
        ("a.json", "", "a.json: the file is empty"),
        ("a.vtt", "<html>\n", "a.vtt, line 1: '<html>' is not WEBVTT"),
        ("a.srt", "<html>\n", "a.srt: no times such as 00:00:01,000 --> 00:00:02,500"),
        ("a.vtt", f"WEBVTT\n\n{CUE}00:0x.000 --> 00:03.000\n", "a.vtt, line 6: '00:0x.000 -->"),
        ("a.vtt", f"WEBVTT\n\n{CUE}2\n12.5 --> 13.5\n", "line 7: '12.5 --> 13.5' are no times; w"),
        ("a.srt", f"1\n{CUE}2\n-00:01 --> 00:02\n", "a.srt, line 6: '-00:01 --> 00:02' are no ti"),
        ("a.srt", f"1\n{CUE}2\n0:03 -->\n", "a.srt, line 6: '0:03 -->' are no times"),
        (
            "a.vtt",
            f"WEBVTT\n\n{CUE}01:03.000 --> 01:02.000\nhello\n",
            "a.vtt, line 6: end (62.0) is not after start (63.0); correct one of them",
        ),
        ("a.vtt", "WEBVTT\n\n0:01 --> 0:01\nhello\n", "a.vtt, line 3: end (1.0) is not after"),
        ("a.vtt", f"WEBVTT\n\n{CUE}caf\x8d\n".encode("latin-1"), "a.vtt, line 6: not UTF-8"),
        ("a.srt", f"1\n{CUE}".encode("utf-16") + b"x", "a.srt, line 5: damaged utf-16"),
        ("a.txt", "hello", "a.txt: captions cannot be read from .txt; use .csv, .json, .vtt, .srt"),
        ("a", "hello", "a: captions cannot be read from a file without ending"),
        ("a.csv", "video,start\n", "a.csv, line 1: no column end, text"),
        ("a.json", "hello", "a.json: not JSON (Expecting value: line 1 column 1 (char 0))"),
        ("a.json", "[" * 100_000, "a.json: not JSON (maximum recursion depth"),
        ("a.json", "[" + "9" * 5000 + "]", "a.json: not JSON ("),
        ("a.json", "3", "a.json: 3 is neither a list nor a mapping of captions"),
        ("a.json", "[]", "a.json: no captions of any video"),
        ("a.json", "[3]", "a.json, entry 1: 3 needs video, start, end, text"),
        ("a.json", '[{"video": "a", "start": 1}]', "a.json, entry 1: {'start': 1, 'video': 'a'}"),
        (
            "a.json",
            '{"text": "hello", "segments": []}',
            "a.json, video 'text': 'hello' must be lists start, end, text of one length",
        ),
        (
            "a.json",
            '{"a": {"start": [1], "end": [2, 3], "text": ["x"]}}',
            "a.json, video 'a': {'end': [2, 3], 'start': [1], 'text': ['x']} must be lists",
        ),
    ],
)
def test_bad_files_are_refused_with_their_place(tmp_path, name, content, message):
    with pytest.raises(CaptionError) as error:
        read_caption_file(write(tmp_path, content, name), max_bad=0)
    assert message in str(error.value)
    assert str(error.value).startswith(str(tmp_path))
    assert "\n" not in str(error.value)


def test_missing_files_are_named(tmp_path):
    for name in ["none.vtt", "none.srt", "none.json", "none.csv"]:
        with pytest.raises(CaptionError, match=f"{name}: no such file; check the path"):
            read_caption_file(tmp_path / name)
    with pytest.raises(CaptionError, match="cannot be read"):
        read_caption_file(write(tmp_path, "", "b.vtt/a").parent)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": "soon"}, "entry 2: start is 'soon', not a number; write seconds, such as 12.5"),
        ({"start": None}, "entry 2: start is None, not a number"),
        ({"start": [1]}, "entry 2: start is [1], not a number"),
        ({"start": None, "end": 3}, "entry 2: start is None, not a number"),
        ({"start": -1}, "entry 2: start is -1; times are seconds from 0 on"),
        ({"start": 2.5}, "entry 2: end (2.5) is not after start (2.5)"),
        ({"end": float("nan")}, "entry 2: end is nan, not a number"),
        ({"end": float("inf")}, "entry 2: end is inf, not a number"),
        ({"end": 10**400}, "entry 2: end is 1000"),
        ({"start": True}, "entry 2: start is True, not a number"),
        ({"text": None}, "entry 2: text is None; write a text, in JSON in quotes"),
        ({"text": True}, "entry 2: text is True; write a text, in JSON in quotes"),
        ({"text": float("nan")}, "entry 2: text is nan; write a text, in JSON in quotes"),
        ({"text": float("inf")}, "entry 2: text is inf; write a text, in JSON in quotes"),
        ({"video": 7}, "entry 2: video is 7; write its name, in JSON in quotes"),
        ({"video": " "}, "entry 2: video is ''; write its name"),
    ],
)
def test_impossible_values_in_json_are_named(tmp_path, changes, message):
    path = write(tmp_path, json.dumps([entry(), entry(**changes)]), "a.json")
    with pytest.raises(CaptionError) as error:
        read_caption_file(path, max_bad=0)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_json_lists_keep_their_order(tmp_path):
    rows = [entry(video="b", text=" two\nlines "), entry(start=5, end="6.5"), entry(text="")]
    captions = [Caption("b", 1, 2.5, "two lines"), Caption("a", 5, 6.5, "hello"),
                Caption("a", 1, 2.5, "")]  # fmt: skip
    path = write(tmp_path, json.dumps(rows), "a.json")
    assert read_caption_file(path) == captions
    assert read_caption_file(path, "b") == captions[:1]
    with pytest.raises(CaptionError, match="no captions of c; check the name"):
        read_caption_file(path, "c")


def test_json_without_times_is_about_whole_videos(tmp_path):
    whole = [
        {"video_id": "a", "sentence": "x"},
        entry(start=None, end=None),
        {"video": "a"} | {"text": "y"},
    ]
    captions = read_caption_file(write(tmp_path, json.dumps(whole), "a.json"))
    assert [c.text for c in captions if c.is_whole] == ["x", "hello", "y"]
    with pytest.raises(CaptionError, match="without both of start and end it is about the whole"):
        read_caption_file(
            write(tmp_path, json.dumps([{"video": "a", "text": "x", "end": 3}]), "a.json")
        )


def test_the_layout_of_howto100m_is_read(tmp_path):
    data = {
        "x1": {"start": [3.5, 1], "end": [4, 2], "text": ["later", "sooner"]},
        "x2": {"start": [], "end": [], "text": []},
    }
    sorted_captions = [Caption("x1", 1, 2, "sooner"), Caption("x1", 3.5, 4, "later")]
    assert read_caption_file(write(tmp_path, json.dumps(data), "a.json")) == sorted_captions
    found = list(captions_by_video(data, "caption.pickle", CaptionParser()))
    assert found == [("x1", sorted_captions), ("x2", [])]


def test_the_video_is_named_by_the_caller_or_the_file(tmp_path):
    names = {
        "holiday.vtt": "holiday",
        "holiday.en.vtt": "holiday",
        "holiday.zh-Hans.VTT": "holiday",
        "holiday.part2.vtt": "holiday.part2",
        "holiday.mov.vtt": "holiday.mov",
        "holiday.mp4.vtt": "holiday.mp4",
        ".en.vtt": ".en",
    }
    for name, video in names.items():
        path = write(tmp_path, f"WEBVTT\n\n{CUE}", name)
        assert read_caption_file(path) == [Caption(video, 1, 2, "hello")]
        assert read_caption_file(path, "x.mp4") == [Caption("x.mp4", 1, 2, "hello")]


def test_captions_of_all_formats_follow_one_rule(tmp_path, caplog):
    """6 of 200 are bad, in every format: counted, named, left out, and limited."""
    times = [(n, n + 1.5) for n in range(200)]
    for number, bad in [(7, (7, 6)), (8, (8, 8)), (9, (math.inf, 9)), (10, (-1, 9))]:
        times[number] = times[number + 20] = bad
    times[30] = times[29] = (29, 30)
    rows = [entry(start=start, end=end) for start, end in times]
    columns = {name: [row[name] for row in rows] for name in ("start", "end", "text")}
    table = "".join(f"{row['video']},{row['start']},{row['end']},hello\n" for row in rows)
    (tmp_path / "asr").mkdir()
    files = {
        "a.csv": f"video,start,end,text\n{table}",
        "a.tsv": f"video,start,end,text\n{table}".replace(",", "\t"),
        "list.json": json.dumps(rows),
        "a.json": json.dumps({"a": columns}),
        "asr/a.csv": f"start,end,text\n{table}".replace("\na,", "\n"),
        "caption.pickle": pickle.dumps({"a": columns}),
    }
    places = ["line 9", "line 9", "entry 8", "video 'a', caption 8"] * 2
    for (name, content), place in zip(files.items(), [*places[:4], *places[1:4:2]], strict=True):
        path = write(tmp_path, content, name)
        if name == "caption.pickle":
            read = functools.partial(read_pickled, path)
        elif name.startswith("asr"):
            read = functools.partial(find_captions, path.parent, ["a"])
        else:
            read = functools.partial(read_caption_file, path)
        caplog.clear()
        found = read()
        assert len(found["a"] if isinstance(found, dict) else found) == 194
        assert f"{path}, {place}: end (6" in caplog.text.replace("(6.0", "(6")
        assert "start is " in caplog.text.replace("start is inf", "start is 'inf'")
        assert ": 6 of 200 captions cannot be used (3%); left out" in caplog.text
        with pytest.raises(CaptionError, match=r"6 of 200 captions .*max_bad \(0.02\) allows"):
            read(max_bad=0.02)


def read_pickled(path, max_bad=0.05):
    parser = CaptionParser(max_bad, timed=True)
    captions = dict(read_by_video(path, parser))
    parser.check()
    return captions


def test_bad_captions_of_a_folder_are_limited_together(tmp_path):
    good = "".join(f"{n},{n + 1},x\n" for n in range(40))
    write(tmp_path, f"start,end,text\n{good}", "a.csv")
    write(tmp_path, "start,end,text\n2,1,x\n3,4,y\n", "b.csv")
    found = find_captions(tmp_path, ["a.mp4", "b.mp4"])
    assert [len(captions) for captions in found.values()] == [40, 1]


def test_a_subtitle_file_follows_the_same_rule(tmp_path, caplog):
    cues = "".join(f"00:{n:02}.000 --> 00:{n:02}.500\nline {n}\n\n" for n in range(40))
    path = write(tmp_path, f"WEBVTT\n\n{cues}00:59.000 --> 00:58.000\nback\n")
    assert len(read_caption_file(path)) == 40
    assert "a.vtt, line 123: end (58.0) is not after start (59.0)" in caplog.text
    with pytest.raises(CaptionError, match="1 of 41 captions"):
        read_caption_file(path, max_bad=0)


def test_many_bad_captions_are_named_in_part(tmp_path):
    path = write(tmp_path, json.dumps([entry(start=9)] * 1000), "a.json")
    with pytest.raises(CaptionError, match=r"entry 5: .*; …: 1000 of 1000 captions") as error:
        read_caption_file(path)
    assert "entry 6" not in str(error.value)


def test_a_number_is_a_text_as_in_the_published_code():
    rows = {"a": {"start": [1], "end": [2], "text": [1984]}}
    ((_, captions),) = captions_by_video(rows, "caption.pickle", CaptionParser())
    assert captions == [Caption("a", 1.0, 2.0, "1984")]
