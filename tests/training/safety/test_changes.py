import pytest

from fusion.config import ConfigError
from fusion.training.safety.changes import FREE, check_changes, describe_changes, find_changes

OLD = {
    "seed": 0,
    "data_root": "/old",
    "data": {"name": "videos", "train": "/old/train.csv", "folders": ["/old/a", "/else/b"]},
    "model": {"name": "eao", "token_dim": 64, "modalities": {"text": {"dim": 8}}},
    "loss": {"terms": {"t|v": 1.0}},
    "trainer": {"epochs": 10, "batch_size": 64, "learning_rate": 1e-3},
    "evaluation": {},
}


def changed(**sections):
    new = dict(OLD)
    for name, value in sections.items():
        new[name] = {**OLD[name], **value} if isinstance(value, dict) else value
    return new


def keys(new):
    return [change.key for change in find_changes(OLD, new)]


def test_all_that_differs_is_found():
    new = changed(seed=1, trainer={"epochs": 20, "num_workers": 2}, model={"token_dim": 32})
    assert keys(new) == ["model.token_dim", "seed", "trainer.epochs", "trainer.num_workers"]
    assert not find_changes(OLD, OLD)


def test_f27_one_line_names_every_key_with_its_reason():
    new = changed(
        seed=1, trainer={"epochs": 20, "batch_size": 32, "weight_decay": 0.1}, loss={"terms": {}}
    )
    with pytest.raises(ConfigError) as error:
        check_changes(OLD, new, "runs/x", "set them back")
    assert str(error.value) == (
        "runs/x was begun with another config and cannot go on with loss.terms: None -> {}"
        " (another objective), loss.terms.t|v: 1.0 -> None (another objective), seed: 0 -> 1"
        " (other batches), trainer.batch_size: 64 -> 32 (other negatives in each step),"
        " trainer.weight_decay: None -> 0.1 (another course of the training); set them back, or"
        " begin another run by output=DIR; these may change: trainer.epochs: 10 -> 20 (the"
        " learning rate follows the schedule of the new number)"
    )


@pytest.mark.parametrize(
    "new",
    [
        changed(trainer={"epochs": 20, "schedule": "constant", "milestones": [3]}),
        changed(trainer={"num_workers": 4, "chunk_size": 8, "num_processes": 2}),
        changed(trainer={"save_every": 10, "save_every_minutes": 1.0, "keep_last": 3}),
        changed(trainer={"log_every": 1, "patience": 3, "report_split": "validation"}),
        changed(evaluation={"batch_size": 8, "model": {"x": 1}, "anything": True}),
    ],
)
def test_f27_what_may_change_is_allowed(new):
    assert check_changes(OLD, new, "runs/x", "")


def test_a_moved_data_root_is_no_other_data():
    data = {"train": "/new/train.csv", "folders": ["/new/a", "/else/b"]}
    assert keys(changed(data_root="/new", data=data)) == ["data_root"]
    assert keys(changed(data_root="/new")) == ["data.folders", "data.train", "data_root"]
    data["train"] = "/new/other.csv"
    with pytest.raises(ConfigError, match=r"data.train: /old/train.csv -> /new/other.csv \(other"):
        check_changes(OLD, changed(data_root="/new", data=data), "x", "y")


@pytest.mark.parametrize(
    ("new", "why"),
    [
        (changed(seed=1), "other batches"),
        (changed(model={"token_dim": 8}), "other weights"),
        (changed(max_clips=5), "other clips"),
        (changed(task="vqa"), "another task"),
        (changed(trainer={"best": "t->v R@1"}), "scores that cannot be compared"),
        (changed(trainer={"epochsx": 1}), "another course"),
        (changed(anything=1), "another run"),
    ],
)
def test_f27_what_may_not_change_says_why(new, why):
    with pytest.raises(ConfigError, match=why):
        check_changes(OLD, new, "runs/x", "set them back")


def test_a_run_says_what_it_goes_on_with():
    changes = find_changes(OLD, changed(trainer={"epochs": 20}, resume=True, output="x"))
    assert describe_changes(changes) == (
        "going on with trainer.epochs: 10 -> 20 (the learning rate follows the schedule of the new"
        " number)"
    )
    assert describe_changes(find_changes(OLD, changed(resume=True))) is None
    assert all(isinstance(note, str) for note in FREE.values())
