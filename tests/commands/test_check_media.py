"""Films are compared with ffmpeg; what differs is listed with its place."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from fusion.commands import check_media as module
from fusion.data.media.film import Piece
from tests.data.media.films import write_film

CASES = Path(__file__).parents[1] / "data" / "media" / "cases"
pytest.importorskip("imageio_ffmpeg", reason="pip install imageio-ffmpeg")


class Late:
    """A reader that is wrong from a second on: black pictures, silent sound."""

    def __init__(self, film, second):
        self.film, self.second = film, second

    def __call__(self, *arguments, **options):
        self.read = self.film(*arguments, **options)
        self.problems, self.notes = [], ["wrong"]
        return self

    def pieces(self):
        made = dict.fromkeys(module.NAMES, 0)
        for piece in self.read.pieces():
            rate = 16_000 if piece.field == "audio" else int(piece.field[8:])
            numbers = made[piece.field] + np.arange(len(piece.data))
            made[piece.field] += len(piece.data)
            data = piece.data.copy()
            data[numbers / rate >= self.second] = 0
            yield Piece(piece.field, data, piece.seconds)


def test_the_cases_are_read_as_ffmpeg_reads_them(capsys):
    files = sorted(CASES.iterdir())
    assert module.check_media(files) == 0
    assert capsys.readouterr().out.startswith("8 files: 0 with differences to ffmpeg")


def test_what_differs_is_listed_from_its_first_second(tmp_path, monkeypatch, capsys):
    write_film(tmp_path / "film.mp4", seconds=3.0)
    monkeypatch.setattr(module, "Film", Late(module.Film, 1.5))
    assert module.check_media([tmp_path / "film.mp4"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "pictures at 24/s  72     72      36      1.50 s" in lines[3]
    assert lines[3].endswith("wrong")
    assert lines[-1].startswith("1 file: 1 with differences")
    module.check_media([tmp_path / "film.mp4"], as_json=True)
    rows = json.loads(capsys.readouterr().out)
    assert [row["what"] for row in rows] == list(module.NAMES.values())
    assert [row["first"] for row in rows] == [2.0, 1.5, 1.5, pytest.approx(1.5, abs=1e-3)]


def test_a_picture_too_few_is_a_difference(tmp_path):
    write_film(tmp_path / "film.mp4")
    few = np.zeros((4, 3), np.uint8)
    assert module._differences(few, few[:3], 0) == ([], 0.0)
    for folder, count in (("ours", 20), ("theirs", 19)):
        (tmp_path / folder).mkdir()
        size = count * module.HEIGHT * module.WIDTH * 3
        (tmp_path / folder / "pictures10").write_bytes(bytes(size))
    (row,) = module._rows(tmp_path, tmp_path / "ours", tmp_path / "theirs", "")
    assert (row.differ, row.first) == (1, 1.9)


def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys):
    with pytest.raises(module.CheckError, match=r"none.mp4: no such file; name media files"):
        module.check_media([tmp_path / "none.mp4"])
    (tmp_path / "text.mp4").write_text("no film")
    assert module.check_media([tmp_path / "text.mp4"]) == 0
    assert "text.mp4: neither reads it" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(module.CheckError, match="no ffmpeg .*; pip install imageio-ffmpeg"):
        module.check_media([tmp_path / "text.mp4"])
