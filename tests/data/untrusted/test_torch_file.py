"""Tensors come out of files of PyTorch; everything else in them is left out or refused."""

import collections
import tracemalloc
import zipfile

import pytest
import torch

from fusion.data.untrusted.torch_file import Stored, TorchFile, TorchFileError
from fusion.data.untrusted.unpickler import LEGACY_TORCH, Foreign

FORMATS = pytest.mark.parametrize("old", [False, True], ids=["zip", "old format"])


def write(path, pickle, old=False):
    """Write a file that torch.save would not write."""
    if old:
        path.write_bytes(LEGACY_TORCH + b"N.N." + pickle)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle)
    return path


def test_a_tensor_is_read_as_torch_reads_it(tmp_path):
    whole = torch.arange(24.0).reshape(2, 3, 4)
    tensors = {
        "part": whole[1:, ::2],
        "turned": whole.permute(2, 0, 1),
        "scalar": torch.tensor(7),
        "flags": torch.tensor([True, False]),
        "narrow": torch.arange(3, dtype=torch.bfloat16),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    for old in (False, True):
        torch.save(tensors, tmp_path / "t.pth", _use_new_zipfile_serialization=not old)
        file = TorchFile(tmp_path / "t.pth")
        for name, tensor in tensors.items():
            read = file.read(file.content[name])
            assert read.dtype == tensor.dtype
            assert torch.equal(read, tensor), name
            assert read.data_ptr() % read.itemsize == 0, name
        assert not file.foreign


@FORMATS
def test_a_pickle_cannot_make_its_items_again_and_again(old, tmp_path):
    """It has them once, and names them in two bytes."""
    items = b"]q\x01(" + b"".join(b"V%d\nN\x86" % i for i in range(9000)) + b"e0"
    calls = b"ccollections\nOrderedDict\nq\x02](" + b"h\x02h\x01\x85R" * 9
    content = b"\x80\x02" + items + calls + b"e."
    refused(write(tmp_path / "a.pth", content, old), "it takes the same data again and again")


def test_a_tensor_at_the_end_that_is_cut_off_is_noticed(tmp_path):
    torch.save([torch.ones(9)], tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "a.pth").write_bytes((tmp_path / "a.pth").read_bytes()[:-1])
    file = TorchFile(tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a.pth is damaged \(it is cut off\)"):
        file.read(file.content[0])


def refused(path, message):
    """Open a file that must be refused without taking memory."""
    with pytest.raises(TorchFileError, match=message):  # warms what is cached
        TorchFile(path)
    tracemalloc.start()
    try:
        with pytest.raises(TorchFileError, match=message) as error:
            TorchFile(path)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000 + 30 * path.stat().st_size
    finally:
        tracemalloc.stop()
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(path))


class Slots:
    __slots__ = ("a",)

    def __init__(self):
        self.a = 1


class Keywords:
    def __getnewargs_ex__(self):
        return (1,), {"b": 2}

    def __new__(cls, a=None, *, b=None):
        return super().__new__(cls)


class Items(list):
    pass


class Table(dict):
    pass


class Members(set):
    pass


OBJECTS = [Slots(), Keywords(), Items([1]), Table(a=1), Members([1]), collections.Counter("aab")]


@pytest.mark.parametrize("protocol", range(2, 6))
def test_objects_of_any_class_are_left_out_and_named(tmp_path, protocol):
    content = {"objects": OBJECTS, "classes": [Slots, Items], "weight": torch.ones(2)}
    torch.save(content, tmp_path / "a.pth", pickle_protocol=protocol)
    file = TorchFile(tmp_path / "a.pth")
    assert file.read(file.content["weight"]).tolist() == [1, 1]
    assert all(isinstance(value, Foreign) for value in file.content["objects"])
    assert [kind.name.rpartition(".")[2] for kind in file.content["classes"]] == ["Slots", "Items"]
    expected = {type(value).__name__ for value in OBJECTS}
    assert expected <= {name.rpartition(".")[2] for name in file.foreign}


@FORMATS
def test_a_whole_module_is_named(tmp_path, old):
    """In the old format its class is an id, with the source code."""
    torch.save(torch.nn.Linear(1, 1), tmp_path / "a.pth", _use_new_zipfile_serialization=not old)
    content = TorchFile(tmp_path / "a.pth").content
    assert isinstance(content, Foreign)
    assert content.name == "torch.nn.modules.linear.Linear"


STORAGE = b"(Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nI4\n"
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE + b"%bI0\n(I2\nt(I1\nttR."


def test_a_part_of_other_data_is_no_tensor(tmp_path):
    """PyTorch 0.1 could save that; its place would be wrong."""
    path = tmp_path / "a.pth"
    assert isinstance(TorchFile(write(path, TENSOR % b"tQ")).content, Stored)
    assert isinstance(TorchFile(write(path, TENSOR % b"NtQ")).content, Stored)
    assert isinstance(TorchFile(write(path, TENSOR % b"(V1\nI1\nI2\nttQ")).content, Foreign)


@FORMATS
@pytest.mark.parametrize(
    ("pickle", "message"),
    [
        (b"}N" + b"\x85" * 20_001 + b"Ns.", "more than 20,000 tuples"),  # as a key, to be hashed
        (b"}N" + b"\x85q\x000h\x00" * 20_001 + b"Ns.", "more than 20,000 tuples"),
        (b"".join(b"cm\n%d\n0" % i for i in range(1001)) + b"N.", "more than 1000 classes"),
        (b"\x8e" + (2**62).to_bytes(8, "little") + b".", "longer than the file or its frame"),
        (b"Nr\xff\xff\xff\x7f.", "a memo number at byte .* is higher"),
        (b"\x82\x01.", "instruction EXT1 at byte"),
        (b"\x97.", "instruction NEXT_BUFFER at byte"),
        (b"ccollections\nOrderedDict\n}Vx\nI1\nsb.", "it changes what is no data"),
        (b"ctorch\nFloatStorage\n}Vdtype\nI1\nsb.", "it changes what is no data"),
        (b"ctorch\nFloatStorage\n)\x81.", "must be a type"),
        (b"}ctorch\nFloatStorage\nNs.", "unhashable"),
    ],
)
def test_hostile_pickles_are_refused_in_both_formats(tmp_path, pickle, message, old):
    refused(write(tmp_path / "a.pth", b"\x80\x02" + pickle, old), message)


@pytest.mark.parametrize(
    "done", [b"", b"}Vname\nVx\nsb", b"I1\na", b"(I1\nI2\ne", b")R", b"I1\nI2\ns", b"(I1\n\x90"]
)
def test_nothing_that_is_done_to_an_unknown_object_has_an_effect(tmp_path, done):
    file = TorchFile(write(tmp_path / "a.pth", b"\x80\x04cm\nname\n)R" + done + b"."))
    assert file.foreign == ["m.name"]
    assert isinstance(file.content, Foreign)
    assert (file.content.name, Foreign.name) == ("m.name", "an id")


def test_tensors_that_cannot_be_cost_little(tmp_path):
    calls = b"ctorch._utils\n_rebuild_tensor_v2\nq\x01(NNNNtq\x02](" + b"h\x01h\x02R" * 20_000
    path = write(tmp_path / "a.pth", b"\x80\x02" + calls + b"e.")
    TorchFile(path)
    tracemalloc.start()
    try:
        assert len(TorchFile(path).content) == 20_000
        assert tracemalloc.get_traced_memory()[1] < 30 * path.stat().st_size
    finally:
        tracemalloc.stop()
