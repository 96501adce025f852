"""Damaged and untrue files of a feature store are noticed and named."""

import hashlib
import json
import logging
import os

import pytest
import safetensors.torch

from fusion.data.features import index as store_index
from fusion.data.features.format import StoreError
from fusion.data.features.store import FeatureStore, find_damaged_shards
from tests.data.features.store_fixtures import check, first_with_rows, names, shards, write


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "is missing; remove its"),
        (lambda path: os.truncate(path, 300), "has 300 bytes instead of"),
        (lambda path: path.open("ab").write(b"more"), "bytes instead of"),
    ],
)
def test_reading_from_a_damaged_shard_is_refused_and_verify_names_it(folder, damage, message):
    shard = shards(folder)[3]
    damage(shard)
    store = FeatureStore(folder)
    video, field = first_with_rows(store, shard)
    with pytest.raises(StoreError, match=message) as caught:
        store.read(video, field)
    assert "\n" not in str(caught.value) and shard.name in str(caught.value)
    (report,) = find_damaged_shards(store)
    assert report.name == shard.stem
    assert set(report.videos) == set(json.loads(shard.with_suffix(".json").read_text())["videos"])
    assert str(caught.value) in report.problem and video in report.videos


def test_a_shard_cut_while_it_is_open_is_refused(folder):
    store, shard = FeatureStore(folder), shards(folder)[3]
    video, field = first_with_rows(store, shard)
    store.read(video, field)
    os.truncate(shard, 20)
    with pytest.raises(StoreError, match="ends at byte"):
        store.read(video, field)


def test_verify_finds_a_changed_bit(folder):
    shard = shards(folder)[2]
    content = bytearray(shard.read_bytes())
    content[-3] ^= 1
    shard.write_bytes(content)
    store, seen = FeatureStore(folder), []
    (report,) = find_damaged_shards(store, seen.append)
    assert "SHA-256" in report.problem and report.name == shard.stem
    assert (
        sum(seen) == sum(store.index.sizes) == sum(path.stat().st_size for path in shards(folder))
    )


def forge(shard, change):
    """Let an index piece lie, with a name that fits to it."""
    piece = shard.with_suffix(".json")
    content = json.loads(piece.read_text())
    change(content)
    new = json.dumps(content).encode()
    stem = f"{shard.stem.rpartition('-')[0]}-{hashlib.sha256(new).hexdigest()[:12]}"
    piece.unlink()
    shard.with_name(f"{stem}.json").write_bytes(new)
    return shard.rename(shard.with_name(f"{stem}.safetensors"))


def entries(content):
    return [e for video in content["videos"].values() for e in video["fields"].values()]


def beyond(content):
    entries(content)[-1][1] += 4


def overlapping(content):
    entries(content)[1][1] -= 2


def negative(content):
    entries(content)[0][1] = -8


def endless(content):
    entries(content)[-1][0] = 10**12


def half_a_row(content):
    entries(content)[0][0] = 1.5


def nameless(content):
    content["videos"]["\ud800"] = {"fields": {}, "facts": {}}


@pytest.mark.parametrize("lie", [beyond, overlapping, negative, endless, half_a_row, nameless])
def test_an_index_piece_that_cannot_be_true_is_refused(folder, lie, caplog):
    shard = forge(shards(folder)[3], lie)
    videos = set(json.loads(shard.with_suffix(".json").read_text())["videos"]) - {"\ud800"}
    with caplog.at_level(logging.WARNING):
        store = FeatureStore(folder)
    assert f"{shard.stem}.json cannot be true" in caplog.text
    for video in videos:
        with pytest.raises(StoreError, match=r"no video .* \(1 of its index pieces are damaged"):
            store.read(video, "2d")
    (report,) = find_damaged_shards(store)
    assert report.name == shard.stem and set(report.videos) <= videos and report.videos
    check(store, sorted(set(names(30)) - videos))


def test_a_lie_within_the_file_is_found_by_verify(folder):
    def swap(content):
        fields = next(v["fields"] for v in content["videos"].values() if len(v["fields"]) == 3)
        fields["2d"][0] -= 1

    shard = forge(shards(folder)[3], swap)
    (report,) = find_damaged_shards(FeatureStore(folder))
    assert "does not hold what its index piece says" in report.problem
    assert report.name == shard.stem


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff"])
def test_a_damaged_index_piece_is_noticed_by_its_name_and_mended(folder, content):
    shard = shards(folder)[3]
    videos = json.loads(shard.with_suffix(".json").read_text())["videos"]
    shard.with_suffix(".json").write_bytes(content)
    store = FeatureStore(folder)
    assert not set(videos) & set(store.videos)
    (report,) = find_damaged_shards(store)
    assert f"{shard.stem}.json is damaged" in report.problem
    assert {v for v in videos if videos[v]["fields"]} == set(report.videos)
    assert not set(videos) & set(FeatureStore(folder).videos)
    shard.unlink()
    shard.with_suffix(".json").unlink()
    write(folder, names(30), name="again")
    check(FeatureStore(folder), names(30))
    assert find_damaged_shards(FeatureStore(folder)) == []


def test_an_index_piece_that_came_back_is_read(folder):
    pieces = [piece.rename(piece.with_suffix(".bak")) for piece in shards(folder, "json")[3:5]]
    for piece in pieces:
        piece.with_suffix(".json").write_text("damaged")
    assert len(FeatureStore(folder)) == len(FeatureStore(folder)) < 30
    for piece in pieces:
        piece.rename(piece.with_suffix(".json"))
        store = FeatureStore(folder)
    check(store, names(30))


@pytest.mark.parametrize("damage", [b"", b"damaged", None])
def test_a_damaged_index_is_made_again(folder, damage):
    FeatureStore(folder)
    (index,) = (folder / "index").glob("*.safetensors")
    index.write_bytes(index.read_bytes()[:-9] if damage is None else damage)
    check(FeatureStore(folder), names(30))
    assert len(safetensors.torch.load_file(index)) == 10


def test_files_of_others_among_the_shards_are_left_alone(folder):
    (folder / "shards" / "notes.json").write_text("{}")
    (folder / "shards" / "w-00007-0123456789ab.safetensors").write_text("no index piece")
    store = FeatureStore(folder)
    check(store, names(30))
    assert find_damaged_shards(store) == []


def test_a_store_that_cannot_be_written_to_has_its_index_in_the_cache(folder, monkeypatch):
    plain = store_index.write_atomically

    def refuse(path, data):
        if folder in path.parents:
            raise PermissionError(path)
        plain(path, data)

    monkeypatch.setattr(store_index, "write_atomically", refuse)
    check(FeatureStore(folder), names(30))
    monkeypatch.setattr(store_index, "build_index", None)  # the second time it is there
    check(FeatureStore(folder), names(30))
