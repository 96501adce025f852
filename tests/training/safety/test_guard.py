"""Finite nonsense: numbers that would destroy a model, weights that explode, clips that are NaN."""

import math
import shutil

import pytest
import torch

from fusion.losses import CombinatorialLoss, MCNLoss
from fusion.manifest import check_files
from fusion.training.log import read_metrics
from fusion.training.optim import MOST
from fusion.training.safety.guard import SkippedClips, WeightGuard, name_clips
from fusion.training.settings import Settings
from fusion.typed import check_numbers
from tests.training.doubles import ClipList
from tests.training.test_trainer import items, make

NEEDED = {"epochs": 1, "batch_size": 4, "learning_rate": 0.1}


@pytest.mark.parametrize("rate", [1e3, 1e30, math.inf, math.nan])
def test_f15_a_learning_rate_that_destroys_any_model_is_refused(rate):
    with pytest.raises(ValueError, match="trainer.learning_rate must be (at most 100|a finite|ab)"):
        Settings(**NEEDED | {"learning_rate": rate})
    with pytest.raises(ValueError, match="trainer.part_learning_rates.a"):
        Settings(**NEEDED, part_learning_rates={"a": rate})


@pytest.mark.parametrize(
    "setting",
    [
        {"learning_rate": 1.0, "batch_size": 4096, "learning_rate_batch": 4},
        {"weight_decay": 1e9},
        {"max_grad_norm": math.inf},
        {"warmup_epochs": math.inf},
        {"save_every_minutes": math.nan},
        {"keep_last": 0},
    ],
)
def test_f15_other_absurd_settings_are_refused(setting):
    with pytest.raises(ValueError, match=f"trainer.({'|'.join(setting)})"):
        Settings(**NEEDED | setting)


def test_settings_that_are_high_but_sensible_are_allowed():
    Settings(**NEEDED | {"learning_rate": 10.0, "weight_decay": 1.0}, part_learning_rates={"a": 30})


@pytest.mark.parametrize("weight", [math.inf, math.nan, -1.0, 1e30])
def test_f15_weights_of_a_loss_that_are_absurd_are_refused(weight):
    with pytest.raises(ValueError, match="weight of term 't|v' must be"):
        CombinatorialLoss(("text", "video"), {"t|v": weight})
    with pytest.raises(ValueError, match="loss.cluster_weight must be"):
        MCNLoss(("text", "video"), cluster_weight=weight)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_f15_a_config_has_finite_numbers_only(value):
    with pytest.raises(ValueError, match="data.list.deep must be a finite number"):
        check_numbers({"data": {"list": [{"deep": value}]}})


def test_f15_weights_that_explode_end_the_run_and_are_not_saved(tmp_path):
    trainer = make(tmp_path, epochs=2)
    trainer.fit()
    for group in trainer.optimizer.param_groups:
        group["initial_lr"] = 1e6
    longer = make(tmp_path, epochs=30, resume=True)
    longer.schedule.base_lrs = [1e6]
    with pytest.raises(FloatingPointError, match="exploded by step 10: .* of step 8 is kept"):
        longer.fit()
    assert check_files(tmp_path / "last")["step"] == 8


def test_f15_before_anything_was_saved_the_message_says_so(tmp_path):
    trainer = make(tmp_path, optimizer="sgd", learning_rate=100.0, log_every=2)
    with torch.no_grad():
        trainer.schedule.base_lrs = [1e38]
    with pytest.raises(FloatingPointError, match="nothing was saved. Lower trainer.learning_rate"):
        trainer.fit()
    assert not (tmp_path / "last").exists() and not (tmp_path / "best").exists()


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["map.t.weight", "norm.running_mean", "optimizer"])
def test_f15_what_is_not_finite_never_replaces_a_checkpoint(tmp_path, where, value):
    trainer = make(tmp_path, epochs=1)
    trainer.fit()
    before = check_files(tmp_path / "last")
    with torch.no_grad():
        if where == "optimizer":
            next(iter(trainer.optimizer.state.values()))["exp_avg"][0, 0] = value
        else:
            trainer.unwrapped.state_dict()[where].view(-1)[0] = value
    with pytest.raises(FloatingPointError, match="explode" if "weight" in where else where):
        trainer._save()
    assert check_files(tmp_path / "last") == before
    if where != "optimizer":
        with pytest.raises(FloatingPointError, match=f"{where} is not finite at step 4, and is"):
            trainer._write("best", lambda folder: None)


def test_weights_that_grow_as_in_training_are_fine():
    parameter = torch.nn.Parameter(torch.full((100,), 0.02))
    guard = WeightGuard([parameter])
    with torch.no_grad():
        parameter.mul_(1000)
    guard.look(1, None)
    zero = WeightGuard([torch.nn.Parameter(torch.zeros(100))])
    with torch.no_grad():
        zero.parameters[0].fill_(50.0)
    zero.look(1, None)
    WeightGuard([]).look(1, None)


class Poisoned(ClipList):
    """Clips of which some are NaN."""

    def __init__(self, clips, bad):
        super().__init__(clips)
        for number in bad:
            self[number]["text"] = self[number]["text"] * math.nan


def test_f15_the_clips_of_steps_that_are_left_out_are_named(tmp_path, capsys):
    make(tmp_path, data=Poisoned(items(), [5]), epochs=1).fit()
    (row,) = [r for r in read_metrics(tmp_path / "metrics.jsonl") if r["event"] == "skipped"]
    assert "5" in row["clips"] and len(row["clips"]) == 6
    said = capsys.readouterr().err
    assert f"clips of step {row['step']}: {', '.join(row['clips'][:5])} and 1 more" in said


def test_f15_a_checkpoint_is_written_before_giving_up(tmp_path):
    data = items(6 * (MOST + 2), poison=math.nan)
    with pytest.raises(
        FloatingPointError, match=r"10 steps in a row, up to step 10; .* clips of s"
    ):
        make(tmp_path, data=data, epochs=1).fit()
    assert check_files(tmp_path / "last")["step"] == 10
    resumed = make(tmp_path, data=data, epochs=1, resume=True)
    assert resumed.steps_done == 10
    shutil.rmtree(tmp_path)


def test_only_so_many_ids_are_remembered(monkeypatch):
    monkeypatch.setattr("fusion.training.safety.guard.KEPT", 5)
    skipped = SkippedClips()
    for step in range(1, 6):
        skipped.note(step, [f"{step}a", f"{step}b"], torch.tensor(step != 4))
    assert skipped.take() == {5: ["5a", "5b"]}
    assert skipped.take() == {}
    assert name_clips({}) == ""
    assert (
        name_clips({3: ["a\x1b[31m"]}) == r"; clips of step 3: 'a\x1b[31m'; metrics.jsonl has all"
    )
