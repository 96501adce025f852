"""States that no training saves: one line, no crash of the interpreter, nothing taken over."""

import math
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from fusion.checkpoint import CheckpointError
from fusion.manifest import MANIFEST, read_manifest, write_manifest
from fusion.training.run_folder import RunFolder
from fusion.training.safety.checkpoints import SEALED, STATE, find_damage
from fusion.training.safety.state import NEEDED
from tests.training.safety.runs import Undisturbed, change_state, copy_of
from tests.training.test_trainer import make, state


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of one epoch, and a trainer to put states into: a refused one changes nothing."""
    folder = tmp_path_factory.mktemp("run")
    make(folder, epochs=1).fit()
    return folder, make(folder, epochs=1)


def optimizer(change):
    """Change the first parameter's state in the optimizer."""

    def changed(saved):
        change(saved["optimizer"]["state"][0])

    return changed


def refused(finished, place, change):
    """Return why a changed state is refused."""
    run = copy_of(finished[0], place)
    change_state(run / "last", change)
    trainer = finished[1]
    trainer.folder = RunFolder(run, {"resume": True, "overwrite": False})
    before = trainer.optimizer.state_dict()["state"][0]["step"].item()
    with pytest.raises(CheckpointError) as error:
        trainer.resume()
    assert "\n" not in str(error.value)
    assert trainer.optimizer.state_dict()["state"][0]["step"].item() == before
    return str(error.value)


HOSTILE = {
    "a list": (lambda s: [1, 2], "it holds a list"),
    "an unknown key": (lambda s: s.update(more=1), "it has more, which is unknown"),
    "a negative epoch": (lambda s: s["position"].update(epoch=-3), "its epoch is -3, not from 0"),
    "a later epoch": (
        lambda s: s["position"].update(epoch=9),
        "its epoch is 9, not from 0 to trainer.epochs=1",
    ),
    "a true epoch": (lambda s: s["position"].update(epoch=True), "its epoch is True"),
    "a later batch": (lambda s: s["position"].update(batch=5), "its batch is 5, not from 0 to 4"),
    "half a batch": (lambda s: s["position"].update(batch=0.5), "its batch is 0.5"),
    "no position": (lambda s: s.update(position="end"), "its position is 'end'"),
    "a best of NaN": (lambda s: s.update(best=math.nan), "its best is nan"),
    "a best of text": (lambda s: s.update(best="high"), "its best is 'high'"),
    "negative patience": (lambda s: s.update(waited=-1), "its waited is -1"),
    "no chunks": (lambda s: s.update(chunks=[]), r"its chunks are \[\]"),
    "an optimizer of None": (lambda s: s.update(optimizer=None), "has no state and param_groups"),
    "an optimizer's list": (lambda s: s["optimizer"].update(state=[1]), "optimizer is a list"),
    "groups of None": (lambda s: s["optimizer"].update(param_groups=None), "other parameters"),
    "fewer parameters": (
        lambda s: s["optimizer"]["param_groups"][0]["params"].clear(),
        "other parameters",
    ),
    "a parameter's list": (lambda s: s["optimizer"]["state"].update({0: [1]}), "0 is a list"),
    "a lost parameter": (
        lambda s: s["optimizer"]["state"].pop(3).clear(),
        "optimizer lacks or adds 3",
    ),
    "a lost moment": (optimizer(lambda m: m.pop("exp_avg")), "0 lacks or adds exp_avg"),
    "a moment of None": (optimizer(lambda m: m.update(exp_avg=None)), "is a NoneType"),
    "a wrong shape": (
        optimizer(lambda m: m.update(exp_avg=torch.zeros(2))),
        r"optimizer.0.exp_avg is \[2\] of torch.float32, not \[3, 4\]",
    ),
    "a wrong type": (
        optimizer(lambda m: m.update(exp_avg=m["exp_avg"].double())),
        "of torch.float64, not",
    ),
    "a moment of NaN": (
        optimizer(lambda m: m["exp_avg_sq"].fill_(math.nan)),
        "optimizer.0.exp_avg_sq is not finite",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_f20_a_state_that_no_training_saves_is_one_line(finished, tmp_path, name):
    change, said = HOSTILE[name]
    assert re.search(said, refused(finished, tmp_path, change))


@pytest.mark.parametrize("key", sorted(NEEDED))
def test_f20_a_state_without_a_key_names_it(finished, tmp_path, key):
    if key == "loss":  # which the first versions did not write, as their losses had no state
        finished[1].loss.state_dict, plain = (lambda: {"queue": 1}), finished[1].loss.state_dict
    try:
        said = refused(finished, tmp_path, lambda s: s.pop(key) and None)
    finally:
        if key == "loss":
            finished[1].loss.state_dict = plain
    assert f"it lacks {key}" in said


def test_weights_that_are_not_finite_are_not_read(finished, tmp_path):
    run = copy_of(finished[0], tmp_path)
    change_state(run / "last", lambda saved: None)
    weights = load_file(run / "last" / "model.safetensors")
    weights["map.t.weight"][0, 0] = math.inf
    save_file(weights, run / "last" / "model.safetensors")
    with pytest.raises(CheckpointError, match="map.t.weight is not finite"):
        make(run, epochs=1, resume=True)


def test_a_state_whose_step_the_manifest_contradicts_is_refused(finished, tmp_path):
    """As one of the same run, but of another epoch, that was sealed with its own weights."""
    run = copy_of(finished[0], tmp_path)
    facts = read_manifest(run / "last")
    (run / "last" / MANIFEST).unlink()
    write_manifest(run / "last", {**facts, "step": 2})
    with pytest.raises(CheckpointError, match="it is of step 4, and the manifest of 2"):
        make(run, epochs=1, resume=True)


def test_a_new_state_without_its_manifest_is_damage(finished, tmp_path):
    run = copy_of(finished[0], tmp_path)
    (run / "last" / "manifest.json").unlink()
    assert torch.load(run / "last" / STATE)[SEALED]
    assert find_damage(run / "last") == f"{run / 'last' / 'manifest.json'} is missing"


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("schedule", ["cosine", "linear", "exponential"])
def test_the_learning_rate_follows_from_the_position(tmp_path, schedule, optimizer):
    settings = {"schedule": schedule, "optimizer": optimizer, "warmup_steps": 2}
    whole = make(tmp_path / "whole", **settings)
    rates = []
    step = whole.schedule.step
    whole.schedule.step = lambda: (step(), rates.append(whole.schedule.get_last_lr()[0]))
    whole.fit()
    half = make(tmp_path / "half", **settings, save_every=5, evaluate=Once())
    with pytest.raises(KeyboardInterrupt):
        half.fit()
    resumed = make(tmp_path / "half", **settings, save_every=5, resume=True)
    assert resumed.steps_done == 5
    assert resumed.schedule.get_last_lr() == [rates[4]]
    assert resumed.optimizer.param_groups[0]["lr"] == rates[4]
    resumed.fit()
    assert all(t.equal(state(whole)[n]) for n, t in state(resumed).items())


class Once:
    """An evaluation that works once."""

    def __init__(self):
        self.left = 1

    def __call__(self, model):
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        return {"score": model.map["t"].weight.sum().item()}


def test_going_on_for_more_epochs_takes_their_schedule(tmp_path):
    make(tmp_path, epochs=1).fit()
    longer = make(tmp_path, epochs=3, resume=True)
    rate = 0.05 * 0.5 * (1 + math.cos(math.pi * 4 / 12))
    assert longer.optimizer.param_groups[0]["lr"] == pytest.approx(rate)
    longer.fit()
    assert longer.steps_done == 12


def test_fewer_epochs_than_are_done_are_one_line(tmp_path):
    Undisturbed(tmp_path)
    with pytest.raises(CheckpointError, match="its epoch is 2, not from 0 to trainer.epochs=1"):
        make(tmp_path / "cut", epochs=1, resume=True)
