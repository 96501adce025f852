import json

import pytest

from fusion.data.captions import Caption, CaptionError
from fusion.data.subtitles import captions_by_video, find_captions, read_caption_file


def write(folder, content, name="a.vtt"):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(folder, content, name="a.vtt"):
    """Give start, end and text of each caption."""
    captions = read_caption_file(write(folder, content, name))
    return [(caption.start, caption.end, caption.text) for caption in captions]


VTT = """WEBVTT - a title
Kind: captions
Language: en

STYLE
::cue { color: red }

REGION
id:top

NOTE a remark --> with an arrow

first
00:01.000 --> 00:02.500 align:start position:0%
<v Bob>fish &amp; <i.loud>chips</i></v>
<00:00:02.000><c>twice</c>

NOTE
two lines
00:00:00 of remarks

1:00:03.25 --> 01:00:04,000
I <3 you &#128578;
"""


def test_webvtt_is_read_without_its_layout(tmp_path):
    assert read(tmp_path, VTT) == [
        (1.0, 2.5, "fish & chips twice"),
        (3603.25, 3604.0, "I <3 you 🙂"),
    ]


SRT = """1
00:00:01,000 --> 00:00:02,000 X1:100 X2:200
{\\an8}<font color="red">hello</font>
there

2
00:00:02.500 --> 00:00:04
press File --> Open

and wait

3
00:00:05,5 --> 00:00:06,000
1984
"""


def test_subrip_is_read_with_empty_lines_and_arrows_in_its_texts(tmp_path):
    assert read(tmp_path, SRT, "a.srt") == [
        (1.0, 2.0, "hello there"),
        (2.5, 4.0, "press File --> Open and wait"),
        (5.5, 6.0, "1984"),
    ]


@pytest.mark.parametrize(("content", "name"), [(VTT, "a.vtt"), (SRT, "a.srt")])
def test_byte_order_marks_and_line_ends_make_no_difference(tmp_path, content, name):
    plain = read(tmp_path, content, name)
    for end in ["\r\n", "\r"]:
        assert read(tmp_path, "\ufeff" + content.replace("\n", end), name) == plain


def test_numbers_and_empty_lines_may_be_missing(tmp_path):
    srt = "\n\n0:01 --> 0:02\nhello\n00:03 --> 00:04\nthere\n9\n00:05 --> 00:06\nyou"
    expected = [(1.0, 2.0, "hello"), (3.0, 4.0, "there"), (5.0, 6.0, "you")]
    assert read(tmp_path, srt, "a.srt") == expected
    assert read(tmp_path, "WEBVTT\n" + srt) == expected


def test_captions_without_text_are_left_out(tmp_path):
    vtt = "WEBVTT\n\n00:01.000 --> 00:02.000\n\n2\n00:02.000 --> 00:01.000\n<i> </i>&nbsp;\n"
    assert read(tmp_path, vtt) == []
    assert read(tmp_path, "WEBVTT") == []


def test_captions_are_sorted_by_time(tmp_path):
    vtt = "WEBVTT\n\n00:03.000 --> 00:04.000\nlater\n\n00:01.000 --> 00:02.000\nsooner\n"
    assert [text for _, _, text in read(tmp_path, vtt)] == ["sooner", "later"]


ROLLING = """WEBVTT
Kind: captions

00:00:00.469 --> 00:00:03.169 align:start position:0%
\x20
welcome<00:00:01.469><c> to</c><00:00:01.620><c> the</c>

00:00:03.169 --> 00:00:03.179 align:start position:0%
welcome to the
\x20

00:00:03.179 --> 00:00:05.000 align:start position:0%
welcome to the
show<00:00:03.500><c> show</c>

00:00:05.000 --> 00:00:05.010 align:start position:0%
show show
\x20

00:00:09.000 --> 00:00:10.000 align:start position:0%
show show
yes

00:00:10.000 --> 00:00:10.010 align:start position:0%
yes
\x20

00:00:10.010 --> 00:00:12.000 align:start position:0%
yes
yes
"""
ONCE = [
    (0.469, 3.179, "welcome to the"),
    (3.179, 5.01, "show show"),
    (9.0, 10.01, "yes"),
    (10.01, 12.0, "yes"),
]


def test_rolling_captions_say_each_line_once(tmp_path):
    assert read(tmp_path, ROLLING) == ONCE


def test_rolling_captions_that_lost_the_times_of_words_say_each_line_once(tmp_path):
    srt = "1\n0:00 --> 0:03\none\n\n2\n0:03 --> 0:05\none\ntwo\n\n3\n0:04 --> 0:07\ntwo\nthree\n"
    assert [text for _, _, text in read(tmp_path, srt, "a.srt")] == ["one", "two", "three"]


def test_a_cue_too_short_to_be_seen_becomes_part_of_the_one_before(tmp_path):
    cues = "00:01.000 --> 00:02.000\none\n\n00:02.000 --> 00:02.010\none\ntwo\n\n"
    again = "00:05.000 --> 00:05.010\none\ntwo\n\n00:07.000 --> 00:08.000\none\ntwo\n"
    assert read(tmp_path, f"WEBVTT\n\n{cues}") == [(1.0, 2.01, "one two")]
    word_times = "00:00.000 --> 00:00.500\nso<00:00:00.250>\n\n"
    assert read(tmp_path, f"WEBVTT\n\n{word_times}{cues}{again}") == [
        (0.0, 0.5, "so"),
        (1.0, 2.01, "one two"),
        (7.0, 8.0, "one two"),
    ]


def test_two_lines_that_roll_are_dropped_together(tmp_path):
    vtt = "WEBVTT\n\n0:01 --> 0:02\na\nb\na\n\n0:02 --> 0:03\na\nb\na\nc\n"
    assert [text for _, _, text in read(tmp_path, vtt)] == ["a b a", "c"]


def test_what_is_said_again_after_a_pause_stays(tmp_path):
    vtt = "WEBVTT\n\n00:01.000 --> 00:02.000\nno\n\n00:03.000 --> 00:04.000\nno\nno\n"
    assert [text for _, _, text in read(tmp_path, vtt)] == ["no", "no no"]


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
            "a.vtt, line 6: end (62.000 s) is not after start (63.000 s); correct one of them",
        ),
        ("a.vtt", "WEBVTT\n\n0:01 --> 0:01\nhello\n", "a.vtt, line 3: end (1.000 s) is not after"),
        ("a.vtt", f"WEBVTT\n\n{CUE}caf\xe9\n".encode("latin-1"), "a.vtt, line 6: not UTF-8"),
        ("a.srt", f"1\n{CUE}".encode("utf-16"), "a.srt, line 1: not UTF-8"),
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
        read_caption_file(write(tmp_path, content, name))
    assert message in str(error.value)
    assert str(error.value).startswith(str(tmp_path))
    assert "\n" not in str(error.value)


def test_missing_files_are_named(tmp_path):
    for name in ["none.vtt", "none.srt", "none.json", "none.csv"]:
        with pytest.raises(CaptionError, match=f"{name}: no such file; check the path"):
            read_caption_file(tmp_path / name)
    with pytest.raises(CaptionError, match="cannot be read"):
        read_caption_file(write(tmp_path, "", "b.vtt/a").parent)


def entry(**changes):
    return {"video": "a", "start": 1, "end": 2.5, "text": "hello"} | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": "soon"}, "entry 2: start is 'soon', end is 2.5; they must be seconds from 0 on"),
        ({"start": None}, "entry 2: start is None"),
        ({"start": [1]}, "entry 2: start is [1]"),
        ({"start": -1}, "entry 2: start is -1"),
        ({"start": 2.5}, "entry 2: start is 2.5, end is 2.5"),
        ({"end": float("nan")}, "entry 2: start is 1, end is nan"),
        ({"end": float("inf")}, "entry 2: start is 1, end is inf"),
        ({"end": 10**400}, "entry 2: start is 1, end is 1000"),
        ({"text": None}, "entry 2: text is None; put it in quotes"),
        ({"video": 7}, "entry 2: video is 7; put it in quotes"),
        ({"video": " "}, "entry 2: video is ' '"),
    ],
)
def test_impossible_values_in_json_are_named(tmp_path, changes, message):
    path = write(tmp_path, json.dumps([entry(), entry(**changes)]), "a.json")
    with pytest.raises(CaptionError) as error:
        read_caption_file(path)
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


def test_the_layout_of_howto100m_is_read(tmp_path):
    data = {
        "x1": {"start": [3.5, 1], "end": [4, 2], "text": ["later", "sooner"]},
        "x2": {"start": [], "end": [], "text": []},
    }
    sorted_captions = [Caption("x1", 1, 2, "sooner"), Caption("x1", 3.5, 4, "later")]
    assert read_caption_file(write(tmp_path, json.dumps(data), "a.json")) == sorted_captions
    assert list(captions_by_video(data, "caption.pickle")) == [("x1", sorted_captions), ("x2", [])]


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
