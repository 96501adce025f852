"""Files that are often taken for pickles are called what they are."""

import pytest
import torch

from fusion.data.untrusted.pickle import PickleFileError, load_pickle

TEXT = b"video,start,end,text\na.mp4,1,2,hello\n"


def line_of(path):
    with pytest.raises(PickleFileError) as error:
        load_pickle(path)
    return str(error.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize("new", [True, False], ids=["zip", "old format"])
def test_a_file_of_pytorch_is_no_pickle_of_features(tmp_path, new):
    torch.save({}, tmp_path / "a.pkl", _use_new_zipfile_serialization=new)
    assert line_of(tmp_path / "a.pkl").startswith("no pickle but a file of PyTorch")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pkl", b"\x93NUMPY\x01", "no pickle but a NumPy array"),
        ("a.pkl", b"<!doctype html>", "no pickle but a web page, which a site shows instead"),
        ("a.pkl", TEXT, "damaged or no pickle (it begins as a text does)"),
        ("a.csv", b"id,caption\n", "no pickle but text, as its ending .csv says"),
    ],
)
def test_what_a_file_is_is_said(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    assert line_of(tmp_path / name).startswith(message)
