"""Files that are damaged, hostile or of another kind."""

import importlib
import io
import os
import random
import subprocess
import tarfile
import zipfile

import pytest
import safetensors.torch
import torch

from fusion.convert import convert_checkpoint
from tests import golden_cases as golden
from tests.convert.test_tool import published_state, save

EMPTY_ZIP = b"PK\5\6" + bytes(18)


class Calls:
    """An object that a pickle makes by a call of any function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call

    def __call__(self):
        """Do nothing: only what can be called may stand for a function in a pickle."""


def zoo(marker):
    """Objects that leave a file behind when they are unpickled in earnest."""
    touch = f"touch {marker}"
    write = f"open({str(marker)!r}, 'w').close()"
    yield Calls(os.system, touch)
    yield Calls(subprocess.Popen, ["touch", str(marker)])
    yield Calls(eval, write)
    yield Calls(exec, write)
    yield Calls(Calls(getattr, Calls(importlib.import_module, "os"), "system"), touch)
    yield Calls(map, Calls(getattr, Calls(importlib.import_module, "os"), "system"), [touch])
    yield {Calls(os.system, touch): 1}
    yield [Calls(os.system, touch), (Calls(os.system, touch),)]


def raw_zoo(marker):
    """Pickles that no pickler writes."""
    path = str(marker).encode()
    command = b"Vtouch " + path + b"\n"
    yield b"cos\nsystem\n(" + command + b"tR."
    yield b"(" + command + b"ios\nsystem\n."
    yield b"(cos\nsystem\n" + command + b"o."
    yield b"cos\nsystem\n(" + command + b"t\x81."
    yield b"cos\nsystem\n(" + command + b"t}\x92."
    yield b"\x80\x04\x8c\x02os\x8c\x06system\x93(" + command + b"tR."
    yield b"cbuiltins\ngetattr\n(cos\n__dict__\nVsystem\ntR(" + command + b"tR."
    yield b"cos\nsystem\n}Vx\ncos\nsystem\nsb."
    yield b"\x82\x01."  # an extension, whatever it may be registered for
    yield b"(Vstorage\ncos\nsystem\nV0\nVcpu\nI1\ntQ."
    yield b"Pos.system\n."
    yield b"\x97."  # a buffer from outside


def write_raw(path, pickle):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle)


@pytest.mark.parametrize("old", [False, True], ids=["zip", "old format"])
def test_nothing_in_a_file_is_executed(old, tmp_path):
    marker = tmp_path / "executed"
    case, _ = golden.read_case("eao_depth0")
    state = published_state(case)
    animals = list(zoo(marker))
    for beast in animals:
        options = {"_use_new_zipfile_serialization": not old}
        path = save(tmp_path / "a.pth", state, config={"x": beast}, **options)
        said = convert_checkpoint(path, tmp_path / f"out{len(list(tmp_path.iterdir()))}", 4)
        assert "ignored   " in said
        path = save(tmp_path / "b.pth", state | {"module.text_proj.fc.bias": beast}, **options)
        with pytest.raises(ValueError, match="'?module.text_proj.fc.bias.* only tensors by name"):
            convert_checkpoint(path, tmp_path / "never", 4)
        torch.save(beast, tmp_path / "c.pth", **options)
        with pytest.raises(ValueError, match=r"c\.pth: "):
            convert_checkpoint(tmp_path / "c.pth", tmp_path / "never", 4)
    assert len(animals) == 8
    assert not marker.exists()
    torch.load(tmp_path / "c.pth", weights_only=False)  # the zoo bites where it is let out
    assert marker.exists()


def test_nothing_in_a_handwritten_pickle_is_executed(tmp_path):
    marker = tmp_path / "executed"
    for pickle in raw_zoo(marker):
        write_raw(tmp_path / "a.pth", pickle)
        with pytest.raises(ValueError, match=r"a\.pth") as error:
            convert_checkpoint(tmp_path / "a.pth", tmp_path / "out")
        assert "\n" not in str(error.value)
    assert not marker.exists()


@pytest.mark.parametrize(
    "pickle",
    [
        b"Nr\xff\xff\xff\x7f.",  # memo number 2 ** 31, for which Python allocates 16 GiB
        b"\x8e" + (2**62).to_bytes(8, "little") + b".",
        b"\x8b\xff\xff\xff\x7f.",
        b"N" + b"\x85" * 100_000 + b".",  # deeper than Python recurses
        b"}N" + b"\x85" * 100_000 + b"Ns.",  # as a key, to be hashed
        b"]" + b"2" * 100_000 + b"e.",
        b"]q\x00h\x00a" + b"h\x00a" * 100_000 + b".",  # a list in itself
        b"h\x05.",
        b"N" * 10,
        b"",
        b"00000.",
    ],
    ids=range(11),
)
def test_a_pickle_cannot_ask_for_more_than_its_length(pickle, tmp_path):
    write_raw(tmp_path / "a.pth", pickle)
    with pytest.raises(ValueError, match=r"a\.pth"):
        convert_checkpoint(tmp_path / "a.pth", tmp_path / "out")


def test_a_large_pickle_is_refused(tmp_path):
    write_raw(tmp_path / "a.pth", b"N0" * 10_000_000 + b"N.")
    with pytest.raises(ValueError, match="20,000,002 bytes beside the data of its tensors"):
        convert_checkpoint(tmp_path / "a.pth", tmp_path / "out")


def damaged(content, draw):
    """Change a few bytes."""
    content = bytearray(content)
    for _ in range(draw.choice([1, 3])):
        content[draw.randrange(len(content))] = draw.randrange(256)
    return bytes(content)


@pytest.mark.parametrize("what", ["zip", "pickle in a zip", "old format"])
def test_any_damage_is_one_line(what, tmp_path):
    """Bytes changed at random never give another kind of error."""
    path, draw = tmp_path / "a.pth", random.Random(0)
    content = {"state_dict": {"a": torch.arange(3), "b": torch.ones(2, 3)}, "config": {"x": [1]}}
    torch.save(content, path, _use_new_zipfile_serialization=what != "old format")
    whole = path.read_bytes()
    with zipfile.ZipFile(io.BytesIO(whole if what != "old format" else EMPTY_ZIP)) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    refused = 0
    for _ in range(150):
        if what == "pickle in a zip":  # whose checksum is right
            with zipfile.ZipFile(path, "w") as archive:
                for name, record in records.items():
                    is_pickle = name.endswith("data.pkl")
                    archive.writestr(name, damaged(record, draw) if is_pickle else record)
        else:
            path.write_bytes(damaged(whole, draw))
        with pytest.raises(ValueError, match=r"a\.pth") as error:
            convert_checkpoint(path, tmp_path / "out")
        assert "\n" not in str(error.value)
        refused += "is damaged" in str(error.value)
    assert refused > 15


@pytest.mark.parametrize("old", [False, True], ids=["zip", "old format"])
def test_damage_to_the_weights_is_noticed(old, tmp_path):
    case, _ = golden.read_case("eao_depth0")
    path = save(tmp_path / "a.pth", published_state(case), _use_new_zipfile_serialization=not old)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"a.pth is damaged \(.*\); download it again"):
        convert_checkpoint(path, tmp_path / "out", 4)
    if not old:  # which has no checksums
        middle = len(content) // 2
        path.write_bytes(content[:middle] + b"oops" + content[middle + 4 :])
        with pytest.raises(ValueError, match="the checksum of .*/data/[0-9]+ in it is wrong"):
            convert_checkpoint(path, tmp_path / "out", 4)
    assert not (tmp_path / "out").exists()


def test_tensors_larger_than_their_data_are_refused(tmp_path):
    case, _ = golden.read_case("eao_depth0")
    state = published_state(case)
    one = torch.ones(1)
    state["module.text_proj.fc.weight"] = one.expand(40, 32)
    path = save(tmp_path / "a.pth", state)
    with pytest.raises(ValueError, match="a tensor of 1280 elements has 4 bytes of data"):
        convert_checkpoint(path, tmp_path / "out", 4)
    state["module.text_proj.fc.weight"] = one.reshape([1] * 9)
    path = save(tmp_path / "a.pth", state)
    with pytest.raises(ValueError, match="is no weight but of torch._utils._rebuild_tensor_v2"):
        convert_checkpoint(path, tmp_path / "out", 4)
    large = torch.ones(max(tensor.numel() for tensor in state.values()))
    state = {k: large[: v.numel()].view(v.shape) for k, v in published_state(case).items()}
    path = save(tmp_path / "a.pth", state)
    with pytest.raises(ValueError, match="its weights overlap"):
        convert_checkpoint(path, tmp_path / "out", 4)


def test_a_file_of_another_kind_is_named(tmp_path):
    path = tmp_path / "a.pth"

    def refused(message):
        with pytest.raises(ValueError, match=message) as error:
            convert_checkpoint(path, tmp_path / "out")
        assert str(path) in str(error.value)

    for content, message in [
        (b"", "is empty; download it again"),
        (b"<!DOCTYPE html><html>Google Drive - Virus scan warning", "a web page, which a site"),
        (b"\x1f\x8b\x08", "compressed; unpack it first"),
        (b"3000000 300\n</s> ", "word vectors; convert it by --out FILE.safetensors"),
        (b"no weights", "no file of PyTorch but of an unknown kind"),
        (b"\x80\x02K\x01.", "a pickle, but none that torch.save writes"),
    ]:
        path.write_bytes(content)
        refused(message)
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("latest_model.pth"), io.BytesIO())
    refused("an archive; unpack it with tar -xf")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("latest_model.pth", b"x")
    refused("a zip, but none that torch.save writes")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"N." * 100)
    refused("data.pkl in it is compressed or encrypted")
    safetensors.torch.save_file({"a": torch.ones(1)}, path)
    refused("a safetensors file")
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("data.pkl", "constants.pkl"):
            archive.writestr(f"archive/{name}", b"N.")
    refused("a TorchScript program")
    path.unlink()
    path.mkdir()
    refused("Is a directory; check the path")


def test_weights_of_another_model_are_named(tmp_path):
    for content, message in [
        ({"mixed_3b.weight": torch.ones(1)}, "seem to be of S3D; only models of EAO, AVLnet, MCN"),
        ({"heads.text.gate.weight": torch.ones(1)}, "of this project"),
        ({"encoder.weight": torch.ones(1)}, r"an unknown model \(encoder.weight\)"),
        ({"epoch": 3}, "epoch is no weight but of int"),
        ([torch.ones(1)], "holds an object of list, not weights by name"),
        ({}, "holds an empty dict, not weights by name"),
        (torch.nn.Linear(1, 1), "holds an object of torch.nn.modules.linear.Linear"),
    ]:
        torch.save(content, tmp_path / "a.pth")
        with pytest.raises(ValueError, match=message):
            convert_checkpoint(tmp_path / "a.pth", tmp_path / "out")
