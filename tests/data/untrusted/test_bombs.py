"""Small files that would fill the memory, never end, or crash the interpreter."""

import os
import pickle
import threading
import zipfile
from pathlib import PurePosixPath

import numpy as np
import pytest
import torch
import yaml

from fusion.data.captions.formats import read_caption_file
from fusion.data.captions.rows import CaptionError
from fusion.data.untrusted import limited, reading
from fusion.data.untrusted.npz import NpzError, read_arrays, read_npy, read_npz
from fusion.data.untrusted.pickle import PickleFileError, load_pickle
from fusion.data.untrusted.reading import NotAFileError, TooLargeError, open_file, read_bytes
from fusion.data.untrusted.torch_file import TorchFile, TorchFileError
from fusion.data.untrusted.weight_files import read_weights, reason_of, shapes_of
from fusion.data.untrusted.word_vectors import read_word_vectors
from fusion.data.untrusted.yaml_file import read_config, read_yaml
from fusion.process import memory_at_peak

TWICE = b"2\x86"  # of what is on the stack: a pair of it
ENDLESS = b"\x80\x02})" + TWICE * 60 + b"Ns."  # {((…, …), (…, …)): None}, 2 ** 60 hashes
DEEP = b"\x80\x02})" + b"\x85" * 200_000 + b"Ns."
REFUSED = "it takes for ever, fills the memory or crashes Python"


@pytest.fixture
def hurried(monkeypatch):
    monkeypatch.setattr(limited, "SECONDS", 1)


@pytest.mark.skipif(os.name != "posix", reason="limits of a process")
@pytest.mark.parametrize("content", [ENDLESS, DEEP])
def test_f19_a_pickle_that_never_ends_or_crashes_python_is_refused(tmp_path, content, hurried):
    path = tmp_path / "x.pkl"
    path.write_bytes(content)
    with pytest.raises(PickleFileError, match=REFUSED) as caught:
        load_pickle(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.skipif(os.name != "posix", reason="limits of a process")
def test_f20_a_checkpoint_that_never_ends_is_refused(tmp_path, hurried):
    torch.save({"a": torch.ones(2)}, tmp_path / "good.pth")
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(tmp_path / "good.pth") as good, zipfile.ZipFile(path, "w") as bad:
        for info in good.infolist():
            is_pickle = info.filename.endswith("data.pkl")
            bad.writestr(info.filename, ENDLESS if is_pickle else good.read(info))
    with pytest.raises(TorchFileError, match=REFUSED):
        TorchFile(path)
    with pytest.raises(ValueError, match=REFUSED):
        read_weights(path)
    assert TorchFile(tmp_path / "good.pth").content["a"].shape == (2,)


def test_harmless_pickles_with_many_tuples_are_read(tmp_path):
    value = [{"where": (i, (1.5, None)), "x": np.arange(3)} for i in range(2000)]
    for protocol in (0, 2, 4):
        (tmp_path / "x.pkl").write_bytes(pickle.dumps(value, protocol))
        found = load_pickle(tmp_path / "x.pkl")
        assert len(found) == 2000 and found[7]["where"] == (7, (1.5, None))


def test_f21_scores_that_claim_to_be_much_larger_than_their_file_are_refused(tmp_path):
    np.savez_compressed(tmp_path / "ranks.npz", x=np.zeros(2**28, np.uint8))
    content, before = (tmp_path / "ranks.npz").read_bytes(), memory_at_peak()
    for source in (tmp_path / "ranks.npz", content):
        with pytest.raises(NpzError, match=f"268435584 bytes, in a file of {len(content)}"):
            read_arrays(source)
    assert memory_at_peak() - before < 2**26
    np.savez_compressed(tmp_path / "x.npz", ids=np.array(["a" * 40] * 5000), y=np.empty((0, 3)))
    found = read_arrays(tmp_path / "x.npz")
    assert found["ids"].shape == (5000,) and found["y"].shape == (0, 3)


@pytest.mark.parametrize("shape", ["(9999999999,)", "(4, 99999999)"])
def test_f21_an_array_that_claims_more_than_it_has_is_refused(tmp_path, shape):
    np.save(tmp_path / "x.npy", np.zeros((4, 4)))
    content = (tmp_path / "x.npy").read_bytes()
    lying = content.replace(b"(4, 4), }" + b" " * (len(shape) - 6), f"{shape}, }}".encode())
    assert lying != content and len(lying) == len(content)
    (tmp_path / "x.npy").write_bytes(lying)
    with pytest.raises(NpzError, match="bytes do not hold"):
        read_npy(tmp_path / "x.npy")
    (tmp_path / "x.npy").write_bytes(content)
    assert read_npy(tmp_path / "x.npy").shape == (4, 4)
    np.save(tmp_path / "x.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(NpzError, match="objects, which could run code"):
        read_npy(tmp_path / "x.npy")


@pytest.mark.parametrize(
    ("name", "read", "error"),
    [
        ("x.pkl", load_pickle, PickleFileError),
        ("x.pth", TorchFile, TorchFileError),
        ("x.npz", lambda path: read_npz(path, "features"), NpzError),
        ("x.npz", read_arrays, NotAFileError),
        ("x.npy", read_npy, NotAFileError),
        ("x.csv", read_caption_file, CaptionError),
        ("x.json", read_caption_file, CaptionError),
        ("x.srt", read_caption_file, CaptionError),
        ("x.txt", read_word_vectors, ValueError),
        ("x.yaml", read_config, NotAFileError),
        ("x.yaml", read_yaml, NotAFileError),
        ("x.pth", read_weights, ValueError),
        ("x.safetensors", read_weights, ValueError),
    ],
)
def test_f24_a_pipe_is_refused_and_not_waited_for(tmp_path, name, read, error):
    os.mkfifo(tmp_path / name)
    found = []

    def attempt():
        with pytest.raises(error):
            read(tmp_path / name)
        found.append(True)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(60)
    if not found:  # let it go on, so that the test ends
        os.close(os.open(tmp_path / name, os.O_RDWR))
    assert found


def test_f24_devices_are_no_files_and_folders_are_called_so(tmp_path):
    with pytest.raises(NotAFileError, match="is a pipe or a device"):
        open_file("/dev/zero")
    with pytest.raises(IsADirectoryError):
        open_file(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_file(tmp_path / "none")


def test_f21_a_text_that_is_too_large_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "x.csv"
    with open(path, "wb") as file:
        file.truncate(2**34)  # of holes
    before = memory_at_peak()
    with pytest.raises(CaptionError, match="16384 MiB, and at most 512 are read"):
        read_caption_file(path)
    with pytest.raises(TooLargeError):
        read_yaml(path)
    assert memory_at_peak() - before < 2**26
    assert read_bytes(__file__, 10**6).startswith(b'"""Small')
    with pytest.raises(TooLargeError):
        read_bytes("/proc/self/maps", 10)  # whose size is said to be 0


def test_f21_deep_nesting_is_an_error_of_one_line(tmp_path):
    (tmp_path / "x.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="nested too deeply"):
        reading.read_json(tmp_path / "x.json")
    (tmp_path / "x.yaml").write_text("a: " + "[" * 5_000 + "]" * 5_000)
    for read in (read_config, read_yaml):
        with pytest.raises((ValueError, yaml.YAMLError), match="nested too deeply|maximum nesting"):
            read(tmp_path / "x.yaml")


def test_f21_yaml_that_repeats_itself_is_refused(tmp_path):
    lines = ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [{f'*a{i - 1}, ' * 9}]" for i in range(1, 20))]
    (tmp_path / "x.yaml").write_text("\n".join(lines))
    with pytest.raises(ValueError, match="repeats parts of itself"):
        read_yaml(tmp_path / "x.yaml")
    with pytest.raises(Exception, match="[Aa]lias|nodes"):
        read_config(tmp_path / "x.yaml")


def test_shapes_of_weights_are_read_without_them(tmp_path):
    import safetensors.torch

    safetensors.torch.save_file({"a": torch.ones(3, 4)}, tmp_path / "x.safetensors")
    assert shapes_of(tmp_path / "x.safetensors") == {"a": (3, 4)}
    (tmp_path / "x.safetensors").write_bytes(b"damaged")
    assert shapes_of(tmp_path / "x.safetensors") == shapes_of(tmp_path / "none") == {}


def test_f20_the_advice_to_run_the_code_of_a_file_is_not_passed_on(tmp_path):
    torch.save({"a": PurePosixPath("x")}, tmp_path / "x.pt")
    with pytest.raises(Exception, match="weights_only") as caught:
        torch.load(tmp_path / "x.pt", weights_only=True)
    said = reason_of(caught.value)
    assert "refused as it could run code" in said
    assert "weights_only" not in said and "\n" not in said
    assert reason_of(ValueError("short\nlong")) == "short" and reason_of(KeyError()) == "KeyError"


@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J"])
def test_names_in_a_file_are_printed_without_what_steers_a_terminal(tmp_path, name):
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.npy", b"no array")
    for read in (read_arrays, lambda path: read_npz(path, "features")):
        with pytest.raises(NpzError) as caught:
            read(path)
        assert str(caught.value).isprintable()


def test_f20_the_advice_to_read_objects_is_not_passed_on(tmp_path):
    """Found by ``python -m tests.fuzz npy``: a long header, and three lines of advice."""
    np.save(tmp_path / "x.npy", np.zeros(3))
    content = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(content[:8] + b"\x00\x40" + content[10:] + b" " * 20_000)
    with pytest.raises(NpzError) as caught:
        read_npy(tmp_path / "x.npy")
    assert "allow_pickle" not in str(caught.value) and str(caught.value).isprintable()
