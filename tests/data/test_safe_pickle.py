import _pickle
import collections
import contextlib
import os
import pickle
import random
import tracemalloc
from struct import pack

import numpy as np
import pytest
import torch

from fusion.data import safe_pickle
from fusion.data.safe_pickle import PickleFileError, load_pickle


def write(folder, content):
    path = folder / "data.pkl"
    path.write_bytes(content)
    return path


def line_of(path, **options):
    """Load a file that is refused; give the only line that says so."""
    with pytest.raises(PickleFileError) as error:
        load_pickle(path, **options)
    message = str(error.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message.removeprefix(f"{path}: ")


def assert_same(found, expected):
    assert type(found) is type(expected)
    if isinstance(found, np.ndarray):
        assert found.dtype == expected.dtype and found.flags.writeable
        np.testing.assert_array_equal(found, expected, strict=True)
    elif isinstance(found, dict):
        assert_same(list(found.items()), list(expected.items()))
    elif isinstance(found, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    else:
        assert found == expected


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
SIX = np.arange(6, dtype="f2").reshape(2, 3)


def test_old_pickles_are_read(tmp_path):
    found = load_pickle(write(tmp_path, PYTHON2_NUMPY1_16))
    assert_same(found, {"x": SIX, "t": np.float64(1.5), "v": "café"})
    found = load_pickle(write(tmp_path, NUMPY1_26))
    assert_same(found, {"video": "a", "2d": SIX, "t": np.float64(1.5)})


def test_it_is_the_fast_unpickler():
    assert issubclass(safe_pickle._Unpickler, _pickle.Unpickler)


# --- The zoo: {} is the name of a folder that each would make -------------------------------------


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def call(module, name, argument="V{}\n"):
    return f"c{module}\n{name}\n({argument}tR.".encode()


RECONSTRUCT = b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntC\x01btR"
DTYPE = b"cnumpy\ndtype\n(V%b\nI00\nI01\ntR"
MKDIR = b"cposix\nmkdir\n(V{}\ntR"
SHELL = "V__import__('os').mkdir('{}')\n"
ZOO = {
    "os.system": call("os", "system", "Vmkdir {}\n"),
    "posix.mkdir": call("posix", "mkdir"),
    "eval": call("builtins", "eval", SHELL),
    "eval of Python 2": call("__builtin__", "eval", SHELL),
    "exec": call("builtins", "exec", SHELL),
    "getattr": b"cbuiltins\ngetattr\n(cos\nmkdir\nVx\ntR.",
    "import": call("builtins", "__import__", "Vos\n"),
    "a dotted name": b"\x80\x04\x8c\x08builtins\x8c\x08dict.get\x93.",
    "a dotted name of numpy": b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.",
    "a dotted module": b"\x80\x04\x8c\x11numpy.core.numpy.\x8c\x07ndarray\x93.",
    "numpy runstring": call("numpy.testing._private.utils", "runstring", f"{SHELL}}}"),
    "numpy load": call("numpy", "load"),
    "numpy fromfile": call("numpy._core.multiarray", "fromfile"),
    "numpy memmap": RECONSTRUCT.replace(b"ndarray", b"memmap") + b".",
    "copyreg": call("copyreg", "_reconstructor"),
    "copy_reg of Python 2": call("copy_reg", "_reconstructor"),
    "torch storage": call("torch.storage", "_load_from_bytes", "C\x01x"),
    "another codec": b"c_codecs\nencode\n(V6162\nVhex\ntR.",
    "decode": b"c_codecs\ndecode\n(C\x04abcdVzip\ntR.",
    "an object in a dtype's arguments": b"cnumpy\ndtype\n(" + MKDIR + b"I00\nI01\ntR.",
    "an object in a dtype's state": DTYPE % b"f2" + b"(I3\nV<\n" + MKDIR + b"NNI-1\nI-1\nI0\ntb.",
    "an object in an array's state": RECONSTRUCT + b"(I1\n(I1\nt" + MKDIR + b"I00\nC\x02abtb.",
    "instruction INST": b"(V{}\niposix\nmkdir\n.",
    "instruction OBJ": b"(cposix\nmkdir\nV{}\no.",
    "instruction NEWOBJ": b"\x80\x02cposix\nmkdir\nV{}\n\x85\x81.",
    "instruction NEWOBJ_EX": b"\x80\x04cposix\nmkdir\nV{}\n\x85}\x92.",
    "instruction EXT1": b"\x80\x02\x82\x01.",
    "instruction PERSID": b"Pabc\n.",
    "instruction BINPERSID": b"N\x80\x04Q.",
}


@pytest.mark.parametrize("name", ZOO)
def test_hostile_pickles_are_refused_and_nothing_runs(tmp_path, name):
    marker = tmp_path / "marker"
    line = line_of(write(tmp_path, ZOO[name].replace(b"{}", str(marker).encode())))
    assert not marker.exists()
    assert line.startswith("refused, ")
    assert name.partition(" ")[2] in line or not name.startswith("instruction")


def test_the_zoo_is_alive(tmp_path):
    marker = tmp_path / "marker"
    for name in ["posix.mkdir", "eval", "an object in a dtype's state", "instruction INST"]:
        with contextlib.suppress(TypeError, ValueError):  # too late
            pickle.loads(ZOO[name].replace(b"{}", str(marker).encode()))
        marker.rmdir()


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_objects_are_refused(tmp_path, protocol):
    marker = tmp_path / "marker"
    values = [
        (np.array([Evil(marker)], dtype=object), "dtype 'O8' is neither of numbers nor of text"),
        (np.array(["plain"], dtype=object), "dtype 'O8'"),
        (np.zeros(2, dtype=[("a", "i4"), ("b", "O")]), "dtype 'V12'"),
        (np.zeros(2, dtype="M8[s]"), "dtype 'M8'"),
        (Evil(marker), "it names '"),
        ({"x": [Evil(marker)]}, "mkdir', which is no data and may run code"),
    ]
    for value, message in values:
        line = line_of(write(tmp_path, pickle.dumps(value, protocol)))
        assert message in line or "instruction" in line
        assert not marker.exists()


def array(code=b"f2", shape=b"(I2\nt", data=b"C\x04abcd", state=b"(I3\nV<\nNNNI-1\nI-1\nI0\ntb"):
    return RECONSTRUCT + b"(I1\n" + shape + DTYPE % code + state + b"I00\n" + data + b"tb."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (array(shape=b"(I3\nt"), "an array of shape (3,) and float16 has 4 bytes"),
        (array(shape=b"(L1000000000000L\nt"), "an array of shape (1000000000000,) and float16"),
        (array(shape=b"(I-2\nI-1\nt"), "an array of shape (-2, -1) and float16 has 4 bytes"),
        (array(shape=b"(" + b"I1\n" * 65 + b"t"), "an array of shape (1, 1, 1, 1, 1, 1, ...)"),
        (array(shape=b"K\x02"), "an array of shape 2 and"),
        (array(code=b"S0"), "dtype 'S0' is neither"),
        (array(code=b"V2"), "dtype 'V2' is neither"),
        (array(code=b"f2,f2"), "dtype 'f2,f2' is neither"),
        (array(data=b"]"), "an array holds a list instead of bytes"),
        (array(state=b"(I3\nV<\n(V<f2\n(I9\nttNNI-1\nI-1\nI0\ntb"), "a dtype with the state (3,"),
        (array(state=b"(I3\nV<\nN(Va\nt}I8\nI1\nI0\ntb"), "a dtype with the state (3, '<', N"),
        (RECONSTRUCT + b"(I1\n(I2\ntNI00\nC\x04abcdtb.", "an array has None for a dtype"),
        (RECONSTRUCT + b".", "damaged or no pickle (AttributeError"),
        (b"cnumpy\nndarray\n(L1000000000000L\ntR.", "damaged or no pickle (TypeError"),
        (b"cbuiltins\nbytearray\n(L1000000000000L\ntR.", "codec"),
        (b"cbuiltins\nbytes\n(L1000000000000L\ntR.", "damaged or no pickle (TypeError"),
        (b"cbuiltins\nset\n(V12\ntR.", "set is made of '12' instead of a list"),
        (b"cnumpy\ndtype\n.", "it holds Function, which is no data"),
        (DTYPE % b"f2" + b".", "it holds Dtype, which is no data"),
        (b"(lcnumpy\ndtype\na.", "it holds Function, which is no data"),
        (b"}cnumpy\ndtype\nNs.", "damaged or no pickle (TypeError: unhashable"),
        (b"cnumpy\ndtype\n}V_function\nI1\nsb.", "refused, it changes what is no data"),
        (b"cnumpy\ndtype\n(N}V_function\nI1\nstb.", "refused, it changes what is no data"),
        (b"ccollections\nOrderedDict\n)R}Vkeys\nI1\nsb.", "it holds OrderedDict, which"),
    ],
)  # fmt: skip
def test_impossible_arrays_and_tricks_are_refused(tmp_path, content, message):
    assert message in line_of(write(tmp_path, content))
    assert_same(load_pickle(write(tmp_path, pickle.dumps(SIX))), SIX)  # nothing was changed


# --- Bombs and damage -----------------------------------------------------------------------------

BOMBS = {
    "LONG_BINPUT": b"]r\xff\xff\xff\x7f.",
    "PUT": b"]p99999999999\n.",
    "PUT without an end": b"]p" + b"9" * 1000,
    "BINBYTES8": b"\x80\x04\x8e" + pack("<Q", 2**33) + b"abc.",
    "BINUNICODE8": b"\x80\x04\x8d" + pack("<Q", 2**63) + b"abc.",
    "BYTEARRAY8": b"\x80\x05\x96" + pack("<Q", 2**33) + b"abc.",
    "BINBYTES": b"\x80\x03B" + pack("<I", 2**32 - 1) + b"abc.",
    "LONG4": b"\x80\x02\x8b" + pack("<i", 2**31 - 1) + b"abc.",
    "LONG4 below zero": b"\x80\x02\x8b" + pack("<i", -1) + b"abc.",
    "FRAME": b"\x80\x04\x95" + pack("<Q", 2**33) + b"N.",
    "a frame in a frame": b"\x80\x04\x95" + pack("<QB", 10, 0x95) + pack("<Q", 1) + b"N.",
    "a number in a frame that goes on outside": b"\x80\x04\x95" + pack("<Q", 1) + b"K\x01.",
    "a line in a frame that goes on outside": b"\x80\x04\x95" + pack("<Q", 2) + b"I1\n.",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_take_no_memory(tmp_path, name):
    path = write(tmp_path, BOMBS[name])
    line_of(path)  # warms what is cached
    tracemalloc.start()
    try:
        line = line_of(path)
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()
    assert line.startswith("refused, a memo number" if "PUT" in name else "")


def test_high_memo_numbers_are_read_where_the_file_is_long_enough(tmp_path):
    text = b"X" + pack("<I", 70_000) + b"x" * 70_000
    for put in [b"r" + pack("<I", 69_999), b"p69999\n", b"q\x07", b"p7\n"]:
        assert load_pickle(write(tmp_path, b"\x80\x02" + text + put + b".")) == "x" * 70_000


@pytest.mark.parametrize("protocol", range(6))
def test_truncated_files_are_one_line(tmp_path, protocol):
    content = pickle.dumps({"a": [SIX, "text", 1.5, 300], "b": (b"bytes" * 60, None)}, protocol)
    for length in [*range(0, len(content), 13), len(content) - 1]:
        line = line_of(write(tmp_path, content[:length]))
        assert line.startswith("damaged or no pickle" if length else "the file is empty")


def test_damaged_files_are_refused_or_plain(tmp_path):
    choose = random.Random(0)
    refused = 0
    for i in range(600):
        content = bytearray(pickle.dumps({"a": [SIX, "text", 1.5], "b": (b"bytes", None)}, i % 6))
        for _ in range(choose.randint(1, 3)):
            content[choose.randrange(len(content))] = choose.randrange(256)
        path = write(tmp_path, content)
        try:
            load_pickle(path)
        except PickleFileError as error:
            refused += 1
            assert "\n" not in str(error) and str(error).startswith(str(path))
    assert refused > 200


@pytest.mark.parametrize(
    "content", [b"video,start,end,text\n", b"\x89PNG\r\n", b"PK\x03\x04", b"x"]
)
def test_other_files_are_no_pickles(tmp_path, content):
    assert line_of(write(tmp_path, content))


def test_a_file_that_is_too_long_or_missing_is_named(tmp_path):
    path = write(tmp_path, pickle.dumps([1, 2]))
    size = path.stat().st_size
    assert load_pickle(path, max_bytes=size) == [1, 2]
    assert line_of(path, max_bytes=size - 1).startswith(f"{size} bytes, more than the {size - 1}")
    assert "No such file" in line_of(tmp_path / "none.pkl")
    assert "check the path" in line_of(tmp_path)


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


class _Tensor:
    """Pickles itself as a tensor that shows what it does not have."""

    def __init__(self, offset, shape, strides):
        self.arguments = (torch.zeros(4).untyped_storage(), offset, shape, strides)

    def __reduce__(self):
        storage = torch.storage.TypedStorage(
            wrap_storage=self.arguments[0], dtype=torch.float32, _internal=True
        )
        hooks = collections.OrderedDict()
        return torch._utils._rebuild_tensor_v2, (storage, *self.arguments[1:], False, hooks)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((2, (3,), (1,)), "shows more numbers than it has"),
        ((0, (1000, 1000), (0, 0)), "repeats its numbers"),
        ((0, (2,), (-1,)), "is not put together as torch does it"),
        ((0, (2, 2), (1,)), "is not put together as torch does it"),
    ],
)
def test_tensors_of_what_is_not_theirs_are_refused(tmp_path, arguments, message):
    path = tmp_path / "tensor.pkl"
    path.write_bytes(pickle.dumps(_Tensor(*arguments)))
    with pytest.raises(PickleFileError, match=message):
        load_pickle(path)
