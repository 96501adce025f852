"""Arrays that are not what their file says."""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from fusion.data.untrusted import npz
from fusion.data.untrusted.npz import read_npz


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_array_comes_back(tmp_path, save):
    values = np.arange(12.0).reshape(3, 4).T
    save(tmp_path / "a.npz", features=values)
    assert np.array_equal(read_npz(tmp_path / "a.npz", "features"), values)


def test_an_array_is_not_larger_than_its_file(tmp_path):
    """With a checksum that is right, for that would be noticed in any case."""
    path, npy = tmp_path / "bomb.npz", io.BytesIO()
    np.save(npy, np.zeros(10, np.float32))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("features.npy", npy.getvalue().replace(b"(10,)", b"(99,)"))
    with pytest.raises(ValueError, match=r"claims to be \(99,\) float32, which its"):
        read_npz(path, "features")


def test_an_hour_of_silence_is_read_and_zeros_without_end_are_not(tmp_path, monkeypatch):
    """Here an hour has 1.6 MB."""
    monkeypatch.setattr(npz, "ANY_TIMES_LARGER", 2_000_000)
    path = tmp_path / "spec.npz"
    np.savez_compressed(path, features=np.full((40, 10_000), -80, np.float32))
    assert path.stat().st_size < 1_600_000 / 200
    assert read_npz(path, "features").shape == (40, 10_000)
    np.savez_compressed(path, features=np.full((40, 50_000), -80, np.float32))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="claims to be 8000128 bytes, in a file of"):
            read_npz(path, "features")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_what_changes_may_be_as_long_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(npz, "ANY_TIMES_LARGER", 0)
    rows = np.random.default_rng(0).standard_normal((1, 2048)).repeat(600, 0).astype(np.float16)
    np.savez_compressed(tmp_path / "frozen.npz", features=rows)
    assert np.array_equal(read_npz(tmp_path / "frozen.npz", "features"), rows)


def test_only_what_numpy_writes_is_unpacked(tmp_path):
    """Others pack zeros a thousand times closer, or ask for memory to unpack them."""
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("features.npy", b"x" * 99)
    with pytest.raises(ValueError, match="as no features are; write them with numpy.savez"):
        read_npz(tmp_path / "a.npz", "features")
