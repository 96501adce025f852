"""HowTo100M from a store: which videos, in which order, of which features."""

import pytest

from fusion.commands.pack import pack_howto100m
from fusion.data.datasets.howto100m import PUBLISHED, HowTo100M
from tests.data.datasets.test_howto100m import VIDEOS, own_cache, root, words  # noqa: F401 (fixtures)


@pytest.fixture
def store(root, tmp_path):  # noqa: F811
    pack_howto100m(root, tmp_path / "store")
    return str(tmp_path / "store")


def listed(tmp_path, *videos):
    path = tmp_path / "list.csv"
    path.write_text("path\n" + "".join(f"{video}\n" for video in videos))
    return str(path)


def test_the_list_says_which_videos_of_a_store_and_in_which_order(root, store, tmp_path):  # noqa: F811
    captions = str(root / "howto" / "caption.pickle")
    chosen = listed(tmp_path, "food/bbb", "cars/ccc")
    source = HowTo100M(store=store, captions=captions, videos=chosen)
    assert list(source.clips("train", words).videos) == ["food/bbb", "cars/ccc"]
    every = HowTo100M(store=store, captions=captions).clips("train", words)
    assert list(every.videos) == sorted(VIDEOS)
    assert list(HowTo100M(str(root), store=store).clips("train", words).videos) == VIDEOS
    with pytest.raises(ValueError, match=r"absent.csv .*; it lists the videos"):
        HowTo100M(str(root), store=store, videos="absent.csv").clips("train", words)


def test_folders_and_store_hold_the_same_videos_out(root, store, tmp_path):  # noqa: F811
    """Even where the store lacks one: what it holds out is never trained on from the folders."""
    names = [*VIDEOS, "food/ddd"]
    chosen = listed(tmp_path, *names)
    folders = HowTo100M(str(root), videos=chosen, validation_videos=2)
    packed = HowTo100M(str(root), store=store, videos=chosen, validation_videos=2, max_bad=0.5)
    assert list(folders.clips("validation", words).videos) == names[2:]
    assert list(packed.clips("validation", words).videos) == names[2:3]
    assert list(packed.clips("train", words).videos) == names[:2]


def test_videos_that_the_store_lacks_are_named_and_limited(root, store, tmp_path, caplog):  # noqa: F811
    settings = {"store": store, "videos": listed(tmp_path, *VIDEOS, "food/ddd")}
    HowTo100M(str(root), **settings, max_bad=0.25).clips("train", words)
    assert "lacks 1 of 4 videos (food/ddd); left out" in caplog.text
    with pytest.raises(ValueError, match=r"lacks 1 of 4 videos .* data.max_bad \(0.05\) allows"):
        HowTo100M(str(root), **settings).clips("train", words)
    settings["videos"] = listed(tmp_path, "food/ddd")
    with pytest.raises(ValueError, match="lacks 1 of 1 videos .* list of its own videos"):
        HowTo100M(str(root), **settings, max_bad=1.0).clips("train", words)


def test_a_store_of_another_published_kind_is_refused(root, store):  # noqa: F811
    with pytest.raises(ValueError, match="features=s3d are .*; set data.features=resnet"):
        HowTo100M(str(root), store=store, features="s3d").clips("train", words)


def test_the_published_features_lie_and_run_as_in_the_published_code():
    found = {
        name: (kind.videos, kind.folder, {n: (f.width, f.per_second) for n, f in fields.items()})
        for name, kind in PUBLISHED.items()
        for fields in [kind.fields]
    }
    sound, listed = (40, 100.0), "HowTo100M_1166_videopaths"
    assert found == {
        "resnet": (
            f"{listed}.txt",
            "features",
            {"2d": (2048, 1.0), "3d": (2048, 1.5), "audio": sound},
        ),
        "s3d": (f"{listed}_s3d.txt", "new_s3d_features", {"3d": (1024, 1.0), "audio": sound}),
        "clip": (f"{listed}_CLIP.txt", "clip_features", {"2d": (512, 1.0), "audio": sound}),
    }
