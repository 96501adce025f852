"""Tables say what made their features, and whose gallery they are about."""

import numpy as np
import pytest

from fusion.data.datasets.captioned import CaptionedVideos
from fusion.data.datasets.howto100m import HowTo100M
from fusion.data.datasets.protocols import PROTOCOLS
from fusion.data.features.writer import StoreWriter
from tests.data.captions.test_annotations import FIELDS, words, write
from tests.data.datasets.test_howto100m import own_cache, root  # noqa: F401 (fixtures)

NETWORKS = {"2d": "resnet152.tv_in1k", "3d": "resnext101"}
WARNING = {"warning": "the weights are random"}


def store_of(folder, facts, video="a"):
    with StoreWriter(folder, FIELDS, "a") as writer:
        rows = {name: np.ones((9, field.width)) for name, field in FIELDS.items()}
        writer.add(video, rows, facts)
    return str(folder)


def open_videos(tmp_path, facts):
    test = write(tmp_path / "t.csv", "video,text\na,a cat\n")
    return CaptionedVideos(test=test, store=store_of(tmp_path / "store", facts))


def test_the_networks_are_named(tmp_path, caplog):
    said = open_videos(tmp_path, {"networks": NETWORKS}).describe("test")
    assert said.endswith("/t.csv, features of resnet152.tv_in1k and resnext101 (store)")
    assert not caplog.text


def test_a_store_that_does_not_know_goes_by_its_name(tmp_path):
    assert open_videos(tmp_path, {}).describe("test").endswith("/t.csv, features of store")


def test_features_of_no_use_are_said_to_be_in_the_table_and_once_loudly(tmp_path, caplog):
    source = open_videos(tmp_path, {"networks": NETWORKS} | WARNING)
    assert source.describe("test").endswith("(store) [WARNING: the weights are random]")
    source.clips("test", words)
    assert caplog.text.count(f"!!! {tmp_path / 'store'}: the weights are random") == 1


def test_howto100m_from_a_store_says_so_too(root, tmp_path, caplog):  # noqa: F811
    assert HowTo100M(str(root)).describe("train").endswith("of HowTo100M, features of resnet")
    store = store_of(tmp_path / "store", {"networks": NETWORKS} | WARNING, "food/aaa")
    videos = write(tmp_path / "videos.csv", "path\nfood/aaa\n")
    said = HowTo100M(str(root), store=store, videos=videos).describe("train")
    assert "features of resnet152.tv_in1k and resnext101 (store) [WARNING: " in said
    assert caplog.text.count("!!! ") == 1


@pytest.mark.parametrize(
    ("name", "published"), [("msrvtt-968-of-1000", 968), ("youcook2-3339-of-3350", 3339)]
)
def test_another_gallery_than_the_published_one_is_said(name, published):
    protocol = PROTOCOLS[name]
    assert protocol.describe(published) == str(protocol)
    said = f"(here 995, not {published:,}: not the published gallery)"
    assert protocol.describe(995) == f"{protocol} {said}"
    assert PROTOCOLS["all"].describe(995) == str(PROTOCOLS["all"])
