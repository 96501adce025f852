import math

import pytest

from fusion.data.captions.table import Caption, CaptionError, CaptionParser, read_csv


def write(folder, content):
    path = folder / "captions.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read_captions(path, video=None, max_bad=0.05):
    parser = CaptionParser(max_bad)
    captions = read_csv(path, parser, video)
    parser.check()
    return captions


def test_captions_are_read_in_the_order_of_the_file(tmp_path):
    path = write(
        tmp_path,
        "video,start,end,text\n"
        'b.mp4,2.5,4,"cut, then peel"\n'
        "a.mp4,0,1.25,a naïve café\n"
        "\n"
        'a.mp4,1,2,"say ""cheese"""\n',
    )
    assert read_captions(path) == [
        Caption("b.mp4", 2.5, 4.0, "cut, then peel"),
        Caption("a.mp4", 0.0, 1.25, "a naïve café"),
        Caption("a.mp4", 1.0, 2.0, 'say "cheese"'),
    ]


def test_columns_may_come_in_any_order_and_others_are_ignored(tmp_path):
    path = write(tmp_path, "text,speaker, end,start,video\nhello,ann,2,1,a.mp4\n")
    assert read_captions(path) == [Caption("a.mp4", 1.0, 2.0, "hello")]


def test_a_byte_order_mark_and_windows_line_ends_are_no_text(tmp_path):
    path = write(tmp_path, b"\xef\xbb\xbfvideo,start,end,text\r\na.mp4,1,2,hello\r\n")
    assert read_captions(path) == [Caption("a.mp4", 1.0, 2.0, "hello")]


@pytest.mark.parametrize(
    "header",
    [
        "end,start,task,text,video_id",
        "end,start,key,caption,video",
        "end,start,x,sentence,video_path",
    ],
)
def test_columns_may_be_called_as_in_published_files(tmp_path, header):
    path = write(tmp_path, f"{header}\n60,47,226,pick the ends off,xHr8X2Wpmno\n")
    assert read_captions(path) == [Caption("xHr8X2Wpmno", 47.0, 60.0, "pick the ends off")]


def test_the_first_of_a_columns_names_counts(tmp_path):
    path = write(tmp_path, "caption,video_id,text,video\nlong,v0,hello,a.mp4\n")
    assert read_captions(path) == [Caption("a.mp4", 0.0, math.inf, "hello")]


@pytest.mark.parametrize(
    "content", ["video,text\na,x\n", "video,start,end,text\na,,,x\n", "\ntext,video\nx,a\n"]
)
def test_a_caption_without_times_is_about_the_whole_video(tmp_path, content):
    (caption,) = read_captions(write(tmp_path, content))
    assert caption == Caption("a", 0.0, math.inf, "x")
    assert caption.is_whole


def test_the_video_of_a_file_of_one_is_named_by_the_caller(tmp_path):
    path = write(tmp_path, "start,end,text\n1,2,hello\n")
    assert read_captions(path, "a.mp4") == [Caption("a.mp4", 1.0, 2.0, "hello")]
    with pytest.raises(CaptionError, match="no column video among start, end, text"):
        read_captions(path)


@pytest.mark.parametrize("text", ["", '""', "  "])
def test_a_text_may_be_empty(tmp_path, text):
    path = write(tmp_path, f"video,start,end,text\na.mp4,1,2,{text}\n")
    assert read_captions(path) == [Caption("a.mp4", 1.0, 2.0, "")]


GOOD = "video,start,end,text\na.mp4,1,2,hello\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "captions.csv: no captions; it needs the line video,start,end,text (or"),
        ("video,start,end,text\n\n", "captions.csv: no captions"),
        (
            "video,begin,end\na.mp4,1,2\n",
            "captions.csv, line 1: no column text among video, begin, end; the first line",
        ),
        (GOOD + "a.mp4,one,2,x\n", "captions.csv, line 3: start is 'one', not a number; write sec"),
        (GOOD + "a.mp4,1,0:75,x\n", "captions.csv, line 3: end is '0:75', not a number"),
        (GOOD + "a.mp4,1,nan,x\n", "captions.csv, line 3: end is 'nan', not a number"),
        (GOOD + "a.mp4,1,inf,x\n", "captions.csv, line 3: end is 'inf', not a number"),
        (GOOD + "a.mp4,,2,x\n", "captions.csv, line 3: start is '', not a number"),
        (
            GOOD + "a.mp4,1,soon,x\n",
            "line 3: end is 'soon', not a number; write seconds, such as 12.5, or",
        ),
        (
            "video,start,stop_ms,text\na.mp4,1,2,x\n",
            "1: no column end among video, start, stop_ms, text; the first line names the columns "
            "video or video_id or video_path, start, end, text or sentence or caption; without both"
            " of start and end it is about whole videos",
        ),
        (
            "video,end,text\na,1,x\n",
            "line 1: no column start among video, end, text; the fir",
        ),
        (
            "video,start_frame,offset,text\na.mp4,1,2,x\n",  # times, but called otherwise
            "line 1: no column start, end among video, start_frame, offset, text; the first line",
        ),
        (GOOD + "a.mp4,3,2,x\n", "captions.csv, line 3: end (2) is not after start (3)"),
        (GOOD + "a.mp4,2,2,x\n", "captions.csv, line 3: end (2) is not after start (2)"),
        (GOOD + "a.mp4,-1,2,x\n", "captions.csv, line 3: start is -1; times are seconds from 0 on"),
        (GOOD + ",1,2,x\n", "captions.csv, line 3: video is ''; write its name"),
        (GOOD + "a.mp4,1,2\n", "captions.csv, line 3: 3 columns, fewer than the first line names"),
        (
            GOOD + "a.mp4,1,2,a dog, a cat\n",
            "captions.csv, line 3: 5 fields in 4 columns; put texts with commas in quotes",
        ),
        (GOOD + 'a.mp4,1,2,"x\n', "captions.csv, line 3: not csv (unexpected end of data)"),
        ((GOOD + "a.mp4,1,2,café\n").encode() + b"a.mp4,1,2,caf\xe9\n", "line 4: not UTF-8, as"),
        (GOOD.encode("utf-16")[:-1], "captions.csv, line 2: damaged utf-16"),
    ],
)
def test_a_bad_file_is_refused_with_its_line(tmp_path, content, message):
    with pytest.raises(CaptionError) as error:
        read_captions(write(tmp_path, content), max_bad=0)
    assert message in str(error.value)
    assert str(error.value).startswith(str(tmp_path))
    assert "\n" not in str(error.value)


def test_a_text_of_several_lines_does_not_shift_the_line_numbers(tmp_path):
    path = write(tmp_path, GOOD + 'a.mp4,1,2,"two\nlines"\na.mp4,x,2,hello\n')
    with pytest.raises(CaptionError, match="line 5: start is 'x'"):
        read_captions(path, max_bad=0)


def test_columns_are_found_whatever_their_case(tmp_path):
    path = write(tmp_path, "Video_ID,START,End,Caption\na.mp4,1,2,hello\n")
    assert read_captions(path) == [Caption("a.mp4", 1.0, 2.0, "hello")]


def test_the_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(CaptionError, match=r"such file \(there is no folder \S*nowhere\); check"):
        read_captions(tmp_path / "nowhere/msrvtt/none.csv")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CaptionError, match="none.csv: no such file; check the path"):
        read_captions(tmp_path / "none.csv")
    with pytest.raises(CaptionError, match="cannot be read"):
        read_captions(tmp_path)
