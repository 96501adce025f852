import pytest

from fusion.data.captions.formats import read_caption_file
from tests.data.captions.caption_fixtures import write


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
