"""Data sets of any task: items without text, with targets."""

import numpy as np
import pytest
import torch

from fusion.data.datasets.captioned import CaptionedVideos
from fusion.data.datasets.dataset import ClipSet, Source, collate
from fusion.data.datasets.howto100m import HowTo100M
from fusion.data.datasets.msrvtt_youcook2 import PickledVideos
from tests.data.captions.test_annotations import MSRVTT, make_store
from tests.data.captions.test_annotations import write as write_text
from tests.data.datasets.test_howto100m import own_cache, root  # noqa: F401 (fixtures)
from tests.data.datasets.test_msrvtt_youcook2 import entry, write


class Labelled(ClipSet):
    """Clips with a label and an answer, without text."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        targets = {"label": index, "box": torch.full((2,), float(index)), "answer": f"no {index}"}
        return {"id": str(index), "video": torch.ones(1, 3), "targets": targets}


def test_a_batch_carries_the_targets_of_its_clips():
    clips = Labelled()
    batch = collate([clips[i] for i in range(len(clips))])
    assert list(batch.inputs) == ["video"]
    assert batch.targets["label"].tolist() == [0, 1, 2, 3]
    assert batch.targets["box"].shape == (4, 2)
    assert batch.targets["answer"] == ["no 0", "no 1", "no 2", "no 3"]


def test_targets_of_several_shapes_are_a_list():
    items = [{"id": str(n), "targets": {"spans": torch.zeros(n, 2)}} for n in range(2)]
    assert [len(spans) for spans in collate(items).targets["spans"]] == [0, 1]


def test_a_data_set_draws_and_reports_nothing_by_default():
    clips = Labelled()
    clips.set_epoch(1)
    clips.end_epoch()
    assert (clips.group, clips.whole, clips.folder, list(clips.captions)) == (1, None, None, [])


def test_a_data_set_of_another_task_needs_no_texts():
    source = Source({"train": "labels.csv", "test": None})
    assert source.splits == ["train"] and source.texts("train") == []
    assert source.protocol_of("train").name == "all" and source.ceiling("train") is None


@pytest.mark.parametrize("kind", ["store", "pickle", "howto100m"])
def test_without_a_text_encoder_items_have_no_text(tmp_path, root, kind):  # noqa: F811
    if kind == "store":
        store = make_store(tmp_path / "store", ["a"])
        file = write_text(tmp_path / "t.csv", "video,text\na,a cat\n")
        source = CaptionedVideos(train=file, store=store)
    elif kind == "pickle":
        source = PickledVideos(train=write(tmp_path / "a.pkl", [entry(0)]))
    else:
        source = HowTo100M(str(root))
    assert list(source.clips("train")[0]) == ["id", "video", "audio"]


def spelled(text):
    return torch.tensor([[float(ord(letter))] for letter in text])


def test_random_draws_follow_from_seed_and_clip_as_in_earlier_runs(tmp_path):
    """A run that goes on after an update sees the same texts and crops."""
    names = [f"video{n}" for n in range(4)]
    store = make_store(tmp_path / "store", names)
    settings = {"store": store, "group_captions": True, "random_crop_seconds": 2.0}
    train = write_text(tmp_path / "a.json", MSRVTT)
    clips = CaptionedVideos(train=train, **settings).clips("train", spelled)
    pickled = [entry(n) for n in range(4)]
    texts = [made["caption"] for made in pickled]
    others = PickledVideos(train=write(tmp_path / "a.pkl", pickled)).clips("train", spelled)
    for seed in (3, 2**63 + 1):
        clips.set_epoch(seed)
        others.set_epoch(seed)
        for n in range(4):
            drawn = np.random.default_rng([seed, n, 1]).integers(3)
            assert clips[n]["text"].equal(spelled(f"sentence {drawn} of {n}"))
            first, last = np.random.default_rng([seed, n]).uniform(0, clips.captions[n].end / 4, 2)
            assert clips._window(n) == (first, clips.captions[n].end - last)
            drawn = np.random.default_rng([seed, n]).integers(3)
            assert others[n]["text"].equal(spelled(texts[n][drawn]))
