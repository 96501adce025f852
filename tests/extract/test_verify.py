"""Videos that an older film reader read otherwise are named, and only those."""

import shutil
from pathlib import Path

import pytest

from fusion.data.features.format import Field
from fusion.data.features.writer import StoreWriter
from fusion.data.media.film import VERSION
from fusion.extract.verify import differences, verify
from tests.data.media.films import write_film, write_frames

CASES = Path(__file__).parents[1] / "data" / "media" / "cases"
OTHERWISE = {
    "adpcm_44k.wav": "sound without time stamps",
    "bframes_h264.avi": "pictures without time stamps",
    "mirrored.mp4": "mirrored",
    "program_stream.mpg": "pictures without time stamps",
    "second_sound_default.mkv": "another sound track",
    "stamps_restart.ts": "time stamps that begin anew",
}
FIELDS = {"2d": Field(3, 1.0), "audio": Field(40, 100.0)}


@pytest.mark.parametrize("name", [path.name for path in sorted(CASES.iterdir())])
def test_what_was_read_otherwise_is_named(name):
    said = "; ".join(differences(CASES / name, FIELDS))
    assert OTHERWISE[name] in said if name in OTHERWISE else said == ""
    assert name in OTHERWISE or name in ("base.mp4", "gap_aac.mp4")


def test_plain_films_are_not_named(tmp_path):
    write_film(tmp_path / "film.mp4")
    write_frames(tmp_path / "film.mkv", range(0, 100, 4), sound=True)
    write_frames(tmp_path / "film.avi", range(50), codec="mjpeg", pixels="yuvj420p")
    for name in ("film.mp4", "film.mkv", "film.avi"):
        assert list(differences(tmp_path / name, FIELDS)) == []


def test_a_store_says_which_of_its_videos_to_extract_again(tmp_path, capsys):
    films = tmp_path / "films"
    films.mkdir()
    for name in ("base.mp4", "mirrored.mp4", "stamps_restart.ts"):
        shutil.copy(CASES / name, films)
    readers = {"base.mp4": {}, "mirrored.mp4": {"reader": 1}, "gone.mp4": {}}
    readers["stamps_restart.ts"] = {"reader": VERSION}
    with StoreWriter(tmp_path / "store", FIELDS, "rank0") as writer:
        for name, facts in readers.items():
            writer.add(name, {}, facts)
    assert list(verify([films], tmp_path / "store")) == ["mirrored.mp4"]
    output = capsys.readouterr()
    assert output.out.startswith("mirrored.mp4: its pictures are mirrored")
    said = "4 videos, 1 of this version of the film reader (2), 1 that it reads alike, 1 that it"
    assert said in output.err and "1 whose file is not among those named" in output.err
