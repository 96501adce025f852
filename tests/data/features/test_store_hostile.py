"""A feature store may come from anybody: it reads, writes and deletes nothing but its own files."""

import errno
import os
import random
import shutil

import numpy as np
import pytest

from fusion import files as fusion_files
from fusion.data.features import files as store_files
from fusion.data.features import format as codec
from fusion.data.features import index as store_index
from fusion.data.features.format import StoreError
from fusion.data.features.store import FeatureStore
from tests.data.features.store_fixtures import check, features_of, first_with_rows, names, shards


@pytest.fixture
def victim(tmp_path):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for name in ("model.safetensors", "0" * 32 + ".safetensors"):
        (folder / name).write_text("precious")
    yield folder
    assert len(list(folder.iterdir())) == 2
    assert {path.read_text() for path in folder.iterdir()} == {"precious"}


def forge(folder, **parts):
    """Write the index of a store anew, with other parts."""
    (path,) = (folder / "index").glob("*.safetensors")
    data = path.read_bytes()
    metadata, tensors = codec.decode_header(lambda start, size: data[start : start + size])
    arrays = {
        name: np.frombuffer(data[begin:end], store_index._DTYPES.get(name, "<i8")).reshape(shape)
        for name, (shape, begin, end) in tensors.items()
    }
    arrays |= parts
    header, _ = codec.encode_header(arrays, metadata)
    path.write_bytes(b"".join([header, *(array.tobytes() for array in arrays.values())]))


@pytest.mark.parametrize("name", ["model", "../checkpoint/model", "{victim}/model", "current\n"])
def test_f22_a_remote_store_names_no_local_file_as_its_index(
    folder, victim, name, tmp_path, monkeypatch
):
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setenv("FUSION_CACHE", str(tmp_path / "cache"))
    remote = fsspec.filesystem("memory")
    named = name.format(victim=victim)
    for path in folder.rglob("*.json"):
        remote.pipe_file(f"/hostile/{path.relative_to(folder).as_posix()}", path.read_bytes())
    remote.pipe_file("/hostile/index/current", named.encode())
    remote.pipe_file(f"/hostile/index/{named}.safetensors", b"evil")
    monkeypatch.setattr(remote, "ls", lambda *a, **k: [])
    with pytest.raises(StoreError, match="cannot be listed, and it has no index"):
        FeatureStore("memory://hostile")
    assert not list(tmp_path.rglob("evil*"))
    remote.rm("/hostile", recursive=True)


def test_f22_nothing_is_written_or_deleted_through_a_linked_index(
    folder, victim, tmp_path, monkeypatch
):
    monkeypatch.setenv("FUSION_CACHE", str(tmp_path / "cache"))
    (folder / "index").symlink_to(victim)
    check(FeatureStore(folder), names(30))
    check(FeatureStore(folder), names(30))


def test_f22_only_its_own_older_indices_are_deleted(folder, victim):
    (folder / "index").mkdir()
    (folder / "index" / "model.safetensors").write_text("of the user")
    (folder / "index" / f"{'1' * 32}.safetensors").write_text("an older index")
    (folder / "index" / f"{'2' * 32}.safetensors").symlink_to(victim / "model.safetensors")
    FeatureStore(folder)
    left = {path.name for path in (folder / "index").iterdir()}
    assert {"model.safetensors", f"{'2' * 32}.safetensors", "current"} < left and len(left) == 4


@pytest.mark.parametrize("place", ["/", "../", "shards/../"])
def test_f22_an_index_that_names_a_file_outside_of_the_store_is_made_again(folder, place):
    FeatureStore(folder)
    secret = folder.parent / "secret.safetensors"
    secret.write_bytes(b"S" * 4000)
    named = f"{folder.parent}/secret" if place == "/" else f"{place}../secret"
    count = len(FeatureStore(folder).index.shards)
    forge(
        folder,
        shards=np.frombuffer("\n".join([named] * count).encode(), np.uint8),
        sizes=np.full(count, 4000),
    )
    check(FeatureStore(folder), names(30))


def test_flipped_bits_of_an_index_never_give_other_features(folder):
    """Of 600 flips, 2 to 10 did before the index had checksums."""
    FeatureStore(folder)
    (path,) = (folder / "index").glob("*.safetensors")
    whole, draw, silent, said = path.read_bytes(), random.Random(0), 0, 0
    for _ in range(600):
        damaged = bytearray(whole)
        damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        for video in draw.sample(names(30), 3):
            try:
                store = FeatureStore(folder)
                for field, expected in features_of(video).items():
                    silent += not np.array_equal(store.read(video, field).numpy(), expected)
                silent += store.facts(video) != {"duration": 4}
            except StoreError:
                said += 1
        if path.read_bytes() != damaged:  # it was made again
            assert path.read_bytes() == whole
    assert silent == 0 and said > 0


def test_what_an_index_says_is_checked_for_each_video_that_is_read(folder):
    store = FeatureStore(folder)
    places = np.array(store.index._places)
    places[3, 2] += 2
    forge(folder, places=places)
    damaged = FeatureStore(folder)
    check_all_but = [video for video in names(30) if video != "v003"]
    for video in check_all_but:
        assert damaged.rows(video, "2d") == store.rows(video, "2d")
    with pytest.raises(StoreError, match="damaged index .* 'v003' has changed.; delete it"):
        damaged.read("v003", "2d")


@pytest.mark.parametrize(("row", "end"), [(0, -1), (1, -5), (1, 10**9)])
def test_f07_facts_that_begin_or_end_nowhere_are_noticed(folder, row, end):
    store = FeatureStore(folder)
    ends = np.array(store.index._facts_ends)
    ends[row] = end
    forge(folder, facts_ends=ends)
    with pytest.raises(StoreError, match="damaged index .* 'v000' has changed"):
        FeatureStore(folder).facts("v000")


def fail(times, number):
    """Make ``os.pread`` fail so many times."""
    left, plain = [times], os.pread

    def pread(*arguments):
        if left[0]:
            left[0] -= 1
            raise OSError(number, os.strerror(number))
        return plain(*arguments)

    return pread


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_f26_a_disk_that_fails_for_a_moment_is_asked_again(folder, number, monkeypatch):
    pauses = []
    monkeypatch.setattr(fusion_files.time, "sleep", pauses.append)
    video, field = first_with_rows(store := FeatureStore(folder), shards(folder)[0])
    monkeypatch.setattr(store_files.os, "pread", fail(3, number))
    assert np.array_equal(store.read(video, field).numpy(), features_of(video)[field])
    assert pauses == [0.1, 0.5, 2.0]


@pytest.mark.parametrize(("number", "asked"), [(errno.EIO, 4), (errno.EACCES, 1)])
def test_f26_a_disk_that_fails_for_good_is_no_reason_to_delete_a_shard(
    folder, number, asked, monkeypatch
):
    monkeypatch.setattr(fusion_files.time, "sleep", lambda seconds: None)
    shard = shards(folder)[0]
    video, field = first_with_rows(store := FeatureStore(folder), shard)
    count = []
    plain = fail(99, number)
    monkeypatch.setattr(store_files.os, "pread", lambda *a: count.append(1) or plain(*a))
    with pytest.raises(StoreError, match="check the disk") as caught:
        store.read(video, field)
    assert shard.name in str(caught.value) and "remove" not in str(caught.value)
    assert len(count) == asked


def test_f24_pipes_among_the_files_of_a_store_are_not_waited_for(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("FUSION_CACHE", str(tmp_path / "cache"))
    FeatureStore(folder)
    for path in list((folder / "index").iterdir()):
        path.unlink()
        os.mkfifo(path)
    check(FeatureStore(folder), names(30))
    shard = shards(folder)[0]
    video, field = first_with_rows(FeatureStore(folder), shard)
    shard.unlink()
    os.mkfifo(shard)
    with pytest.raises(StoreError, match="has 0 bytes instead of"):
        FeatureStore(folder).read(video, field)
    shutil.rmtree(folder / "index")
    piece = shards(folder, "json")[1]
    piece.unlink()
    os.mkfifo(piece)
    with pytest.raises((StoreError, OSError), match="pipe"):
        FeatureStore(folder)


@pytest.mark.parametrize("name", ["store.json", "piece", "index"])
def test_f21_deeply_nested_json_is_no_crash(folder, name):
    FeatureStore(folder)
    nested = b"[" * 100_000
    if name == "index":
        (path,) = (folder / "index").glob("*.safetensors")
        path.write_bytes(len(nested).to_bytes(8, "little") + nested)
        check(FeatureStore(folder), names(30))
        return
    path = folder / name if name == "store.json" else shards(folder, "json")[0]
    path.write_bytes(nested)
    if name == "store.json":
        with pytest.raises(StoreError, match="nested too deeply"):
            FeatureStore(folder)
        return
    digest = codec.piece_digest(nested)  # as a store of a stranger would be named
    for old in (path, path.with_suffix(".safetensors")):
        old.rename(old.with_stem(f"w-00000-{digest}"))
    (problem,) = FeatureStore(folder).index.damaged.values()
    assert "nested too deeply" in problem
