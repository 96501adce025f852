"""Modalities that training clips lose: how many, which, and that nothing but the clip decides."""

import pytest
import torch
from torch.utils.data import DataLoader

from fusion.builders import check_config
from fusion.config import ConfigError, load_config
from fusion.data.datasets.dataset import ClipSet, FirstClips, collate
from fusion.data.datasets.dropping import DroppedModalities, WithoutModality, lose
from fusion.tasks.retrieval.task import Retrieval
from tests.own import CONFIG as OWN
from tests.tiny import write_config
from tests.training.test_trainer import make

NAMES = ("text", "video", "audio")


class Numbered(ClipSet):
    """Clips of one token of each modality; ``missing`` says which modalities some of them lack."""

    def __init__(self, count, missing=(), names=NAMES, width=2):
        self.count, self.missing, self.names, self.width = count, missing, names, width

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        lengths = {name: (index, name) not in self.missing for name in self.names}
        token = torch.full((1, self.width), float(index + 1))
        return {"id": str(index), **{name: token[: lengths[name]] for name in self.names}}


def lost(clips, index):
    before, after = clips.clips[index], clips[index]
    assert after["id"] == before["id"]
    return {name for name in NAMES if len(after[name]) < len(before[name])}


def test_each_modality_is_lost_as_often_as_the_config_says():
    clips = DroppedModalities(Numbered(1), {"audio": 0.2, "video": 0.6}, NAMES)
    draws = [lose({"audio": 0.3}, NAMES, 1, index) for index in range(4000)]
    assert sum(map(len, draws)) / 4000 == pytest.approx(0.3, abs=0.03)
    draws = [lose(clips.shares, NAMES, 1, index) for index in range(4000)]
    # Both are drawn for 12 in 100 clips, of which each is lost in a half: two modalities stay.
    for name, share in {"audio": 0.2 - 0.06, "video": 0.6 - 0.06}.items():
        assert sum(name in names for names in draws) / 4000 == pytest.approx(share, abs=0.03)


def test_a_clip_keeps_two_of_its_modalities():
    nearly_all = dict.fromkeys(NAMES, 0.99)
    missing = {(0, "audio"), (1, "video"), (1, "text")}
    clips = DroppedModalities(Numbered(3, missing), nearly_all, NAMES)
    for seed in range(20):
        clips.set_epoch(seed)
        assert [len(lost(clips, index)) for index in range(3)][:2] == [0, 0]
        assert len(lost(clips, 2)) == 1
    two = DroppedModalities(
        Numbered(3), dict.fromkeys(NAMES[:2], 0.99), NAMES[:2]
    )  # of a model without sound
    two.set_epoch(0)
    assert all(len(two[index][name]) for index in range(3) for name in NAMES)


def test_what_a_clip_loses_depends_on_seed_and_clip_alone():
    one = DroppedModalities(Numbered(40), {"audio": 0.5}, NAMES)
    assert all(not lost(one, index) for index in range(40))  # before the first epoch
    one.set_epoch(3)
    forward = [lost(one, index) for index in range(40)]
    assert [lost(one, index) for index in reversed(range(40))] == forward[::-1]
    both = DroppedModalities(Numbered(40), {"video": 0.0, "text": 0.1, "audio": 0.5}, NAMES)
    both.set_epoch(3)
    assert sum("audio" in lost(both, i) for i in range(40)) <= sum(map(bool, forward))
    one.set_epoch(4)
    assert [lost(one, index) for index in range(40)] != forward
    loader = DataLoader(one, batch_size=7, collate_fn=collate, num_workers=2)
    in_workers = torch.cat([batch.present["audio"] for batch in loader])
    assert in_workers.tolist() == [not lost(one, index) for index in range(40)]


def test_draws_of_a_modality_do_not_depend_on_the_others():
    alone = [bool(lose({"audio": 0.3}, NAMES, 5, index)) for index in range(200)]
    text_too = [lose({"audio": 0.3, "text": 1e-9}, NAMES, 5, index) for index in range(200)]
    assert ["audio" in names for names in text_too] == alone


def test_the_place_in_the_run_decides_what_is_lost_and_no_process(tmp_path):
    """A trainer that goes on within an epoch, and two processes, read the clips of a whole run."""

    def batches(epoch, first=0, rank=0, processes=1):
        clips = DroppedModalities(Numbered(24, width=4), {"audio": 0.5, "video": 0.3}, NAMES)
        trainer = make(tmp_path, data=clips)
        trainer.batches.rank, trainer.batches.world_size = rank, processes
        trainer.epoch, trainer.batch = epoch, first
        kept = list(trainer.rest_of_epoch())
        return [
            list(zip(b.ids, *(b.present[n].tolist() for n in NAMES), strict=True)) for b in kept
        ]

    whole = batches(1)
    assert batches(1, first=2) == whole[2:]
    shares = zip(batches(1, rank=0, processes=2), batches(1, rank=1, processes=2), strict=True)
    assert [one + other for one, other in shares] == whole
    other = {row for batch in batches(2) for row in batch}
    assert {row for batch in whole for row in batch} != other  # epochs differ


def test_training_clips_alone_lose_modalities(tmp_path):
    data = {"drop_modalities": {"audio": 0.9, "video": 0.9}}
    task = Retrieval(load_config(write_config(tmp_path, data=data), ["max_clips=5"]))
    task.open_data()
    task.extract()
    task.open_encoders(None)
    train, test = task.clips("train"), task.clips("test")
    assert isinstance(test, FirstClips)
    train.set_epoch(0)
    index = next(i for i in range(len(train)) if all(len(train.clips[i][n]) for n in NAMES))
    assert sum(len(train[index][name]) > 0 for name in NAMES) == 2
    assert (train.captions, list(train.shows)) == (train.clips.captions, list(train.clips.shows))
    assert len(train) == len(train.clips)


def test_own_data_and_an_own_model_lose_modalities_too():
    config = OWN | {"data": OWN["data"] | {"drop_modalities": {"video": 0.5}}, "task": "retrieval"}
    config |= {"max_clips": None, "max_unknown": 0.5, "seed": 0}
    config["text_encoder"] = {"name": "tests.own:Words"}
    task = Retrieval(config)
    task.open_data()
    task.open_encoders(None)
    assert isinstance(task.clips("train"), DroppedModalities)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"drop_modalities": {"audoi": 0.2}}, "drop_modalities.audoi is no modality .* 'audio'"),
        ({"drop_modalities": {"audio": 1.0}}, "drop_modalities.audio .* below 1.*got 1.0"),
        ({"drop_modalities": {"audio": -0.1}}, "got -0.1"),
        ({"drop_modalities": {"audio": "many"}}, "got 'many'"),
        ({"drop_modalities": {"audio": True}}, "got True"),
        ({"drop_modalities": 0.2}, "must name modalities, .*; got 0.2"),
        ({"drop_modality": {"audio": 0.2}}, "drop_modality is unknown; did you mean 'drop_modal"),
    ],
)
def test_a_wrong_setting_is_refused(tmp_path, data, message):
    with pytest.raises(ConfigError, match=message):
        check_config(load_config(write_config(tmp_path, data=data)))


def test_all_clips_of_a_test_lose_one_modality():
    clips = WithoutModality(Numbered(3, {(1, "video")}), "audio")
    assert [[len(clip[name]) for name in NAMES] for clip in map(clips.__getitem__, range(3))] == [
        [1, 1, 0],
        [1, 0, 0],
        [1, 1, 0],
    ]
