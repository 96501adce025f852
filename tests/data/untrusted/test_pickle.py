"""Plain data and arrays come back from pickles of every age."""

import _pickle
import collections
import pickle
from struct import pack

import numpy as np
import pytest
import torch

from fusion.data.untrusted.pickle import load_pickle
from fusion.data.untrusted.unpickler import Unpickler
from tests.data.untrusted.pickle_fixtures import SIX, assert_same, line_of, write

PLAIN = [
    [None, True, 0, -1, 300, 70_000, 2**40, -(10**30), 1.5, 1j, "", "é☃", "x" * 300, "y" * 70_000],
    [b"", b"\x00\xff", b"z" * 70_000, bytearray(), bytearray(b"\xff")],
    [(), (1,), (1, 2), (1, 2, 3), (1, (2, [3, 4])), {1, "a"}, set(), frozenset({2.5})],
    {"a": {"b": [1]}, ("c", 1): 2, 3: None, b"d": collections.OrderedDict([("z", 1), ("y", [2])])},
]
TYPES = ["?", "i1", "u2", "i4", "<i8", "f2", "f4", "f8", "c8", "c16", "S3", "U3", ">f4", ">U3"]
ARRAYS = {
    "types": {name: (np.arange(12).reshape(3, 4) % 2).astype(name) for name in TYPES},
    "layouts": [
        np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        np.arange(24.0).reshape(4, 6)[::2, ::3],
        np.arange(24.0).reshape(2, 3, 4).transpose(1, 0, 2),
        np.zeros((0, 5)),
        np.array(3.0),
    ],
    "large": np.arange(20_000.0),
    "in a tuple": (np.arange(3), [np.arange(2)]),
    "numbers": [np.float32(1.5), np.int64(3), np.bool_(True), np.str_("hé"), np.bytes_(b"q")],
    "keys": {np.int64(3): 1, (1, np.str_("a")): 2},
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("value", [PLAIN, ARRAYS], ids=["plain", "arrays"])
def test_plain_data_and_arrays_come_back(tmp_path, value, protocol):
    content = pickle.dumps(value, protocol)
    assert_same(load_pickle(write(tmp_path, content)), pickle.loads(content))


@pytest.mark.parametrize("protocol", range(6))
def test_what_is_shared_or_contains_itself_stays_so(tmp_path, protocol):
    array = np.arange(3)
    value = [array, array, (array,)]
    value += [value, value[2]]
    found = load_pickle(write(tmp_path, pickle.dumps(value, protocol)))
    assert found[0] is found[1] is found[2][0]
    assert found[3] is found and found[4] is found[2]


# Written by the versions named: {"v": "café", "x": float16 (2, 3), "t": float64}.
PYTHON2_NUMPY1_16 = (
    b"\x80\x02}q\x01(U\x01xcnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00"
    b"\x85U\x01b\x87Rq\x04(K\x01K\x02K\x03\x86cnumpy\ndtype\nq\x05U\x02f2K\x00K\x01\x87Rq\x06(K"
    b"\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x0c\x00\x00\x00<\x00@\x00B\x00D"
    b"\x00EtbU\x01tcnumpy.core.multiarray\nscalar\nq\x07h\x05U\x02f8K\x00K\x01\x87Rq\x08(K\x03U"
    b"\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tbU\x08\x00\x00\x00\x00\x00\x00\xf8?\x86Rq\t"
    b"U\x01vU\x04caf\xe9q\nu."
)
# Written by NumPy 1.26, protocol 4: {"video": "a", "2d": the same, "t": the same}.
NUMPY1_26 = (
    b"\x80\x04\x95\xef\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x05video\x94\x8c\x01a\x94\x8c\x022d"
    b"\x94\x8c\x15numpy.core.multiarray\x94\x8c\x0c_reconstruct\x94\x93\x94\x8c\x05numpy\x94\x8c"
    b"\x07ndarray\x94\x93\x94K\x00\x85\x94C\x01b\x94\x87\x94R\x94(K\x01K\x02K\x03\x86\x94h\x07\x8c"
    b"\x05dtype\x94\x93\x94\x8c\x02f2\x94\x89\x88\x87\x94R\x94(K\x03\x8c\x01<\x94NNNJ\xff\xff\xff"
    b"\xffJ\xff\xff\xff\xffK\x00t\x94b\x89C\x0c\x00\x00\x00<\x00@\x00B\x00D\x00E\x94t\x94b\x8c\x01"
    b"t\x94h\x04\x8c\x06scalar\x94\x93\x94h\x10\x8c\x02f8\x94\x89\x88\x87\x94R\x94(K\x03h\x14NNNJ"
    b"\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t\x94bC\x08\x00\x00\x00\x00\x00\x00\xf8?\x94\x86\x94R"
    b"\x94u."
)


def test_old_pickles_are_read(tmp_path):
    found = load_pickle(write(tmp_path, PYTHON2_NUMPY1_16))
    assert_same(found, {"x": SIX, "t": np.float64(1.5), "v": "café"})
    found = load_pickle(write(tmp_path, NUMPY1_26))
    assert_same(found, {"video": "a", "2d": SIX, "t": np.float64(1.5)})


def test_it_is_the_fast_unpickler():
    assert issubclass(Unpickler, _pickle.Unpickler)


def test_high_memo_numbers_are_read_where_the_file_is_long_enough(tmp_path):
    text = b"X" + pack("<I", 70_000) + b"x" * 70_000
    for put in [b"r" + pack("<I", 69_999), b"p69999\n", b"q\x07", b"p7\n"]:
        assert load_pickle(write(tmp_path, b"\x80\x02" + text + put + b".")) == "x" * 70_000


@pytest.mark.parametrize("protocol", range(6))
def test_tensors_become_arrays(tmp_path, protocol):
    """AVLnet's pickles hold spectrograms as tensors."""
    tensor = torch.arange(24, dtype=torch.float16).reshape(4, 6)
    value = {"a": tensor, "b": tensor.T[1:3], "c": torch.zeros(0, 5), "d": torch.tensor(3)}
    path = tmp_path / "tensors.pkl"
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    read = load_pickle(path)
    for name, expected in value.items():
        assert isinstance(read[name], np.ndarray)
        np.testing.assert_array_equal(read[name], expected.numpy())
        assert read[name].dtype == expected.numpy().dtype


def test_a_file_that_is_missing_is_named(tmp_path):
    assert "No such file" in line_of(tmp_path / "none.pkl")
    assert "check the path" in line_of(tmp_path)
