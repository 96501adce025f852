"""Damaged npz files: whatever is wrong, one kind of error that names the file."""

import zipfile

import numpy as np
import pytest

from fusion.data.features.format import Field
from fusion.data.features.readers import PublishedFolders
from fusion.data.untrusted.npz import NpzError, read_npz


def outcome(path):
    try:
        return read_npz(path, "features").shape
    except NpzError as error:
        assert str(path) in str(error)
        return "refused"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_whatever_byte_is_wrong_the_file_is_named(tmp_path, save):
    path = tmp_path / "clip_2d.npz"
    save(path, features=np.arange(60, dtype=np.float32).reshape(6, 10))
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    outcomes = []
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        outcomes.append(outcome(path))
    assert outcomes.count("refused") > 100


HEADERS = {
    "a text that does not end": b"{'descr': '<f4', 'shape': (6, 10",
    "a number for the type": b"{'descr': 5, 'fortran_order': False, 'shape': (6, 10), }",
    "no dictionary": b"(((((",
    "indented": b"  {'descr'\n   :\n '<f4'",
    "bytes that are no text": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_a_header_that_makes_no_sense_is_the_files_fault(tmp_path, header):
    path = tmp_path / "clip_2d.npz"
    body = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("features.npy", body + bytes(240))
    assert outcome(path) == "refused"


@pytest.mark.parametrize("kind", ["longdouble", ">f4", ">f2", "uint16", "float64", "float16"])
def test_numbers_of_any_type_are_read(tmp_path, kind):
    (tmp_path / "list.csv").write_text("path\na\n")
    (tmp_path / "a").mkdir()
    np.savez(tmp_path / "a" / "a_2d.npz", features=np.arange(6).reshape(2, 3).astype(kind))
    reader = PublishedFolders(tmp_path / "list.csv", tmp_path, tmp_path, {"2d": Field(3, 1.0)})
    assert reader.read("a", "2d").tolist() == [[0, 1, 2], [3, 4, 5]]
    assert reader.read("a", "2d").element_size() == (2 if kind == "float16" else 4)


def test_features_without_a_row_are_named(tmp_path):
    (tmp_path / "list.csv").write_text("path\na\n")
    (tmp_path / "a").mkdir()
    np.savez(tmp_path / "a" / "a_2d.npz", features=np.zeros((0, 3), np.float16))
    reader = PublishedFolders(tmp_path / "list.csv", tmp_path, tmp_path, {"2d": Field(3, 1.0)})
    with pytest.raises(ValueError, match="a_2d.npz: no rows"):
        reader.read("a", "2d")
