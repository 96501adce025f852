"""Pickles that would run code, fill the memory or are damaged: one line, and nothing happens."""

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

from fusion.data.untrusted.pickle import PickleFileError, load_pickle
from tests.data.untrusted.pickle_fixtures import SIX, assert_same, line_of, write

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
def test_f19_hostile_pickles_are_refused_and_nothing_runs(tmp_path, name):
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
        (b"ccollections\nOrderedDict\n)R}Vkeys\nI1\nsb.", "it changes an OrderedDict"),
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
def test_f21_bombs_take_no_memory(tmp_path, name):
    path = write(tmp_path, BOMBS[name])
    line_of(path)  # warms what is cached
    tracemalloc.start()
    try:
        line = line_of(path)
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()
    assert line.startswith("refused, a memo number" if "PUT" in name else "")


@pytest.mark.parametrize("protocol", range(6))
def test_f13_truncated_files_are_one_line(tmp_path, protocol):
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
