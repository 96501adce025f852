import hashlib
import itertools
import json
import multiprocessing
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from fusion.data.captions import index as caption_index
from fusion.data.captions.index import FILES, CaptionStore, open_captions, write_caption_store
from fusion.data.captions.table import Caption, CaptionError
from fusion.data.features import name_index
from fusion.data.features.name_index import hash_name

ITEMS = [
    ("zebra", [Caption("zebra", 1 / 3, 2.0, "a naïve café"), Caption("zebra", 2.0, 1e5 + 0.1, "")]),
    ("", [Caption("", 0.0, 1.0, "no name")]),
    ("silent", []),
    ("apple", [Caption("apple", 5.0, 6.0, "later"), Caption("apple", 1.0, 9.0, "sooner")]),
    ("naïve ☃", [Caption("naïve ☃", 0.0, 1.0, "🙂\n")]),
]


@pytest.fixture
def store(tmp_path):
    write_caption_store(tmp_path / "store", iter(ITEMS))
    return CaptionStore(tmp_path / "store")


def test_captions_come_back_sorted_by_start(store):
    for video, captions in ITEMS:
        assert store.captions(video) == sorted(captions, key=lambda caption: caption.start)
    assert (len(store), store.num_captions) == (5, 6)
    store.verify()


def test_videos_are_a_sequence_in_the_order_written(store):
    names = [video for video, _ in ITEMS]
    assert list(store.videos) == names and len(store.videos) == 5
    assert store.videos[-1] == names[-1] and store.videos[1:4:2] == names[1:4:2]
    assert "silent" in store.videos and store.videos.index("silent") == 2
    with pytest.raises(IndexError):
        store.videos[5]


def test_a_video_is_in_the_store_or_is_not(store):
    assert all(video in store for video, _ in ITEMS)
    assert not any(video in store for video in ["zebr", "zebraa", "Zebra", "\ud800", 3, None])
    with pytest.raises(KeyError, match="store: no captions of 'lion'; check the name"):
        store.captions("lion")


def test_an_empty_store_is_one(tmp_path):
    write_caption_store(tmp_path / "store", [])
    store = CaptionStore(tmp_path / "store")
    assert (len(store), list(store.videos), "a" in store) == (0, [], False)
    write_caption_store(tmp_path / "store", [("silent", [])])
    assert CaptionStore(tmp_path / "store").captions("silent") == []


def test_names_with_one_hash_are_told_apart(tmp_path, monkeypatch):
    for module in (name_index, caption_index):
        monkeypatch.setattr(module, "hash_name", lambda name: len(name) % 3)
    names = [str(n) for n in range(120)]
    items = [(name, [Caption(name, 0.0, 1.0, f"of {name}")]) for name in names]
    write_caption_store(tmp_path / "store", items)
    store = CaptionStore(tmp_path / "store")
    assert [store.captions(name)[0].text for name in names] == [f"of {name}" for name in names]
    assert "1000" not in store
    with pytest.raises(ValueError, match="video '1' comes twice"):
        write_caption_store(tmp_path / "store", [("1", []), ("0", []), ("1", [])])


def test_hashes_are_the_same_on_every_machine():
    assert hash_name(b"zebra") == 1212366760143743210


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (("zebra", []), "video 'zebra' comes twice; join its captions"),
        (("b", [Caption("c", 0, 1, "x")]), "captions of 'b': one is of 'c'; put it with its own v"),
        (("b", [Caption("b", 2, 1, "x")]), "captions of 'b': one is from 2 to 1 s; the end must"),
        (("b", [Caption("b", -1, 1, "x")]), "captions of 'b': one is from -1 to 1 s"),
        (("b", [Caption("b", 0, float("nan"), "x")]), "captions of 'b': one is from 0 to nan s"),
        (("b", [Caption("b", 0, float("inf"), "x")]), "captions of 'b': one is from 0 to inf s"),
        (("b", [Caption("b", 0, 1, "\ud800")]), "captions of 'b': 'utf-8' codec can't encode"),
    ],
)
def test_impossible_captions_are_refused_and_what_was_there_stays(tmp_path, store, item, message):
    with pytest.raises(ValueError, match=message):
        write_caption_store(store.path, [*ITEMS, item])
    assert len(CaptionStore(store.path)) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def texts_of(store):
    return [caption.text for caption in store.captions("apple")]


@pytest.mark.parametrize("method", ["fork", "forkserver"])  # of which one inherits nothing
def test_workers_read_the_store(store, method):
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply(texts_of, (store,)) == ["sooner", "later"]


def test_a_store_travels_as_its_path(store, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    sent = pickle.dumps(CaptionStore("store"))
    monkeypatch.chdir("/")
    assert len(sent) < 3000
    assert texts_of(pickle.loads(sent)) == ["sooner", "later"]


def test_a_store_written_anew_is_noticed(store):
    sent = pickle.dumps(store)
    write_caption_store(store.path, ITEMS[:1])
    assert texts_of(store) == ["sooner", "later"]  # the old one, as long as it is open
    with pytest.raises(CaptionError, match="store: written again while in use; open it again"):
        pickle.loads(sent)


ALL_FILES = [*FILES, "store.json"]


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_store_with_cut_or_missing_files_does_not_open(store, damage):
    for name in ALL_FILES:
        path = store.path / name
        content = path.read_bytes()
        path.unlink()
        if damage == "cut":
            path.write_bytes(content[:-2])
        with pytest.raises(CaptionError, match=f"store: .*{name}") as error:
            CaptionStore(store.path)
        assert "\n" not in str(error.value)
        path.write_bytes(content)
    store.verify()


def test_changed_bytes_are_found_by_verifying(store):
    for name in FILES:
        content = (store.path / name).read_bytes()
        changed = bytearray(content)
        changed[-9 if len(content) > 9 else -1] ^= 1
        (store.path / name).write_bytes(changed)
        with pytest.raises(CaptionError, match=f"damaged caption store, {name} has changed"):
            CaptionStore(store.path).verify()
        (store.path / name).write_bytes(content)


@pytest.mark.parametrize("name", ["names.i8", "places.i8", "captions.i8", "texts.i8", "times.f8"])
def test_offsets_that_lead_nowhere_are_an_error_or_another_video(store, name):
    numbers = np.fromfile(store.path / name, FILES[name])
    for place, value in itertools.product(range(len(numbers)), [-1, 3, 2**62]):
        changed = numbers.copy()
        changed[place] = value
        changed.tofile(store.path / name)
        try:
            damaged = CaptionStore(store.path)
            for video in [video for video, _ in ITEMS if video in damaged]:
                assert all(caption.video == video for caption in damaged.captions(video))
            list(damaged.videos)
        except CaptionError as error:
            assert "damaged caption store" in str(error) and "\n" not in str(error)


@pytest.mark.parametrize(
    ("name", "place", "value", "message"),
    [
        ("texts.i8", 1, 20, "captions of 'zebra' have places out of range"),
        ("captions.i8", 1, -1, "captions of 'zebra' have places out of range"),
        ("captions.i8", 1, 7, "captions of 'zebra' have places out of range"),
        ("times.f8", 0, np.nan, "captions of 'zebra': one is from nan to 2.0 s"),
        ("times.f8", 1, 0.0, "captions of 'zebra': one is from 0.3"),
        ("texts.txt", 0, 0xFF, "captions of 'zebra': 'utf-8' codec can't decode"),
        ("names.txt", 5, 0xFF, "name 2 is not UTF-8"),
    ],
)
def test_what_makes_no_sense_is_found_where_it_is_read(store, name, place, value, message):
    numbers = np.fromfile(store.path / name, FILES[name])
    numbers[place] = value
    numbers.tofile(store.path / name)
    damaged = CaptionStore(store.path)
    with pytest.raises(CaptionError, match=f"damaged caption store, {message}"):
        damaged.captions("zebra"), list(damaged.videos)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "caption store of version 2, not 1; write it again"),
        ({"videos": "5"}, "damaged caption store, store.json lacks numbers"),
        ({"videos": 6}, "damaged caption store, its files do not fit together"),
        ({"captions": 7}, "damaged caption store, its files do not fit together"),
        ({"files": {}}, "damaged caption store, store.json cannot be read"),
    ],
)
def test_another_manifest_is_refused(store, change, message):
    path = store.path / "store.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CaptionError, match=message):
        CaptionStore(store.path)


def test_another_folder_is_no_store(tmp_path):
    for path in [tmp_path, tmp_path / "none"]:
        with pytest.raises(CaptionError, match="no caption store .*check the path"):
            CaptionStore(path)


def test_writing_takes_the_memory_of_one_video(tmp_path):
    def items():
        for i in range(200):
            yield f"video {i}", [Caption(f"video {i}", j, j + 1, "words " * 300) for j in range(10)]

    write_caption_store(tmp_path / "warm", [])
    tracemalloc.start()
    try:
        write_caption_store(tmp_path / "store", items())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (tmp_path / "store" / "texts.txt").stat().st_size == 200 * 10 * 1800
    assert peak < 500_000  # of 3.6 million bytes


def test_a_store_that_version_0_1_wrote_opens_and_is_written_alike(tmp_path):
    old = CaptionStore(Path(__file__).parent / "format_1")
    old.verify()
    items = [
        ("zebra", [Caption("zebra", 1 / 3, 2.0, "a naïve café"), Caption("zebra", 0.5, 1.5, "")]),
        ("silent", []),
        ("☃", [Caption("☃", 0.0, 1.0, "snow")]),
    ]
    assert [(video, old.captions(video)) for video in old.videos] == items
    write_caption_store(tmp_path / "store", items)
    for path in old.path.iterdir():
        assert (tmp_path / "store" / path.name).read_bytes() == path.read_bytes()


CAPTIONS = {"aaa": {"start": [1.0], "end": [2.0], "text": ["cut it"]}}


@pytest.fixture
def pickled(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSION_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "caption.pickle"
    file.write_bytes(pickle.dumps(CAPTIONS))
    return file


def test_of_two_that_convert_at_once_the_first_is_kept(pickled, tmp_path, monkeypatch):
    """Other machines have its files mapped, which must not vanish."""
    write, mapped = caption_index.write_caption_store, []

    def slowly(place, items):
        if not mapped:
            mapped.append(None)
            mapped.append(open_captions(pickled))  # another machine, from beginning to end
            mapped.append(state(mapped[1].path))
        write(place, items)

    def state(folder):
        return {file.name: file.stat().st_ino for file in folder.iterdir()}

    monkeypatch.setattr(caption_index, "write_caption_store", slowly)
    opened = open_captions(pickled)
    assert [caption.text for caption in opened.captions("aaa")] == ["cut it"]
    assert opened.path == mapped[1].path
    assert state(opened.path) == mapped[2]
    assert list((tmp_path / "cache" / "captions").iterdir()) == [opened.path]


def test_a_conversion_that_fails_leaves_nothing_behind(pickled, tmp_path):
    pickled.write_bytes(pickle.dumps(["no captions of videos"]))
    with pytest.raises(ValueError, match="does not hold the captions of each video"):
        open_captions(pickled)
    assert list((tmp_path / "cache" / "captions").iterdir()) == []


def test_a_video_whose_lists_do_not_fit_loses_its_captions_and_no_others(pickled, caplog):
    good = {"start": [1.0], "end": [2.0], "text": ["x"]}
    pickled.write_bytes(pickle.dumps({"aaa": {**good, "end": []}, "bbb": good}))
    store = open_captions(pickled)
    assert list(store.videos) == ["bbb"]
    assert "video 'aaa': {'end': [], " in caplog.text
    assert "1 of 2 captions cannot be used (50%)" in caplog.text


def test_a_cache_of_before_that_did_not_count_bad_captions_is_not_used(pickled, tmp_path):
    state = pickled.stat()
    identity = f"{pickled.resolve()} {state.st_size} {state.st_mtime_ns}"
    name = hashlib.sha256(identity.encode()).hexdigest()[:32]
    (tmp_path / "cache" / "captions" / name).mkdir(parents=True)
    opened = open_captions(pickled)
    assert opened.path.name != name
    assert [caption.text for caption in opened.captions("aaa")] == ["cut it"]
