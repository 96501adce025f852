"""Caption files as people write them: guessed with one line that says so, or refused with one."""

import logging
import math
import unicodedata

import pytest

from fusion.data.captions.formats import read_caption_file
from fusion.data.captions.match import read_all
from fusion.data.captions.table import CaptionError

HEAD = "video,start,end,text\n"
ROWS = HEAD + "a.mp4,1,2.5,ein Hund bellt\n"
SEMI = "video;start;end;text\n"

ACCEPTED = [  # content, start, end, text of the first caption, what is said of the guess
    (SEMI + "a.mp4;1;2.5;a dog, a cat\n", 1, 2.5, "a dog, a cat", "separator ';'"),
    (ROWS.replace(",", "\t"), 1, 2.5, "ein Hund bellt", "separator tab"),
    (ROWS.replace(",", "|"), 1, 2.5, "ein Hund bellt", "separator '|'"),
    ("sep=;\n" + SEMI + "a.mp4;1;2.5;x\n", 1, 2.5, "x", "separator ';'"),
    ((HEAD + "a.mp4,1,2.5,café\n").encode("cp1252"), 1, 2.5, "café", "encoding cp1252"),
    ((HEAD + "a.mp4,1,2.5,café\n").encode("utf-16"), 1, 2.5, "café", "encoding utf-16"),
    ((HEAD + "a.mp4,1,2.5,café\n").encode("utf-16-le"), 1, 2.5, "café", "encoding utf-16-le"),
    ((HEAD + "a.mp4,1,2.5,café\n").encode("utf-16-be"), 1, 2.5, "café", "encoding utf-16-be"),
    (SEMI + "a.mp4;1,25;2,5;x\n", 1.25, 2.5, "x", "decimal commas (2 times)"),
    (HEAD + "a.mp4,0:59,1:02.5,x\n", 59, 62.5, "x", "times written mm:ss (2 times)"),
    (HEAD + "a.mp4,00:01:02.250,01:00:00.500,x\n", 62.25, 3600.5, "x", "written hh:mm:ss (2"),
    (HEAD + 'a.mp4,"00:01:02,250","00:01:03,5",x\n', 62.25, 63.5, "x", "written hh:mm:ss"),
    (HEAD + "a.mp4,12.5s,14 sec,x\n", 12.5, 14, "x", "times with the unit s (2 times)"),
    (HEAD + "a.mp4,1,,x\na.mp4,4,5,y\n", 1, 4, "x", "an end that is missing is the start of the"),
    (HEAD + "a.mp4,1,,x\nb.mp4,4,5,y\n", 1, math.inf, "x", "or the end of the film"),
    ("video,start,text\na.mp4,1,x\na.mp4,3,y\n", 1, 3, "x", "an end that is missing"),
    (
        "filename,start_time,end_time,caption\na.mp4,1,2,x\n",
        *(1, 2, "x", "columns filename, start_time, end_time as video, start, end"),
    ),
    ("File,Start (s),Stop (s),Description\na.mp4,1,2,x\n", 1, 2, "x", "columns File, Start (s)"),
    (ROWS + ",,,\n ,,,\n,,,\n", 1, 2.5, "ein Hund bellt", ""),
    (ROWS + "a.mp4,3,4,y,,,\n", 1, 2.5, "ein Hund bellt", ""),
    (ROWS.replace("\n", "\r"), 1, 2.5, "ein Hund bellt", ""),
    (b"\xef\xbb\xbf" + ROWS.encode(), 1, 2.5, "ein Hund bellt", ""),
]
REFUSED = [  # content, what the message says besides separator and encoding
    (ROWS + "a.mp4,3,4,a dog, a cat\n", "line 3: 5 fields in 4 columns; put texts with commas in"),
    (ROWS + "a.mp4,1,5,2,5,x\n", "line 3: 6 fields in 4 columns"),
    (ROWS + 'a.mp4,3,4,"x\n', "line 3: not csv (unexpected end of data); put texts"),
    (ROWS + 'a.mp4,"1,5",2,x\n', "line 3: start is '1,5', not a number; write seconds"),
    (SEMI + "a.mp4;1;2:75;x\n", "line 2: end is '2:75', not a number; write seconds"),
    (HEAD + "a.mp4,00:00:01:12,00:00:02:03,x\n", "line 2: start is '00:00:01:12', not a number"),
    (HEAD + "a.mp4,3,2,x\n", "line 2: end (2) is not after start (3); correct one"),
    ("a.mp4,1,2.5,x\nb.mp4,1,2,y\n", "line 1: no column video, start, end, text among a.mp4, 1"),
    ("Film;Anfang;Ende;Satz\na.mp4;1;2;x\n", "line 1: no column start, end, text among Film, An"),
    ("video,start_ms,end_ms,text\na.mp4,1,2,x\n", "line 1: no column start, end among video, sta"),
    ("video,start,duration,text\na.mp4,1,2,x\n", "line 1: no column end among video, start, dura"),
    ('"vid\n\neo",start,end,text\na,1,2,x\n', "line 1: no column video among vid eo, start"),
]
BROKEN = [  # no table at all: neither encoding nor separator can be said
    (b"PK\x03\x04 spreadsheet", "line 1: a spreadsheet, not a text file; save it as csv in UTF-8"),
    ((HEAD + "ä,1,2,x\n").encode() + b"a,1,2,\xe9\n", "line 3: not UTF-8, as other lines are: two"),
    (HEAD.encode() + b"a,1,2,\x81\x8d\n", "line 2: not UTF-8, UTF-16 or Windows-1252"),
    (HEAD.encode() + b"a,1,2,\x00\x01x\n", "line 2: no text (read as utf-8); save the file as UTF"),
]


def write(folder, content, name="captions.csv"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_there_are_more_than_thirty_three():
    assert len(ACCEPTED) + len(REFUSED) + len(BROKEN) >= 33


@pytest.mark.parametrize(("content", "start", "end", "text", "said"), ACCEPTED)
def test_a_guess_is_said_in_one_line(tmp_path, caplog, content, start, end, text, said):
    path = write(tmp_path, content)
    with caplog.at_level(logging.WARNING):
        caption = read_caption_file(path)[0]
    assert (caption.video, caption.start, caption.end, caption.text) == ("a.mp4", start, end, text)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == bool(said)
    if said:
        assert lines[0].startswith(f"{path}: guessed: ")
        assert said in lines[0]


@pytest.mark.parametrize(("content", "message"), REFUSED)
def test_what_cannot_be_guessed_is_refused(tmp_path, content, message):
    path = write(tmp_path, content)
    with pytest.raises(CaptionError) as error:
        read_caption_file(path, max_bad=0)
    assert f"{path}, {message}" in str(error.value)
    separator = "';'" if ";" in content else "','"
    assert f"read as UTF-8 with the separator {separator}" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("content", "message"), BROKEN)
def test_what_is_no_table_is_refused_with_its_line(tmp_path, content, message):
    path = write(tmp_path, content)
    with pytest.raises(CaptionError) as error:
        read_caption_file(path)
    assert str(error.value).startswith(f"{path}, {message}")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_composed_and_decomposed_letters_find_the_same_film(tmp_path, form):
    film = unicodedata.normalize("NFD" if form == "NFC" else "NFC", "über/Café.mp4")
    name = unicodedata.normalize(form, "über/Café")
    path = write(tmp_path, f"{HEAD}{name},1,2,x\n")
    assert [caption.video for caption in read_all(path, [film])] == [film]


def test_backslashes_find_their_film(tmp_path):
    path = write(tmp_path, f"{HEAD}holiday\\beach.mp4,1,2,x\n")
    assert read_all(path, ["holiday/beach.mp4"])[0].video == "holiday/beach.mp4"
