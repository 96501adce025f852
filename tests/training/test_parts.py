"""Learning rates of parts and decay of matrices in a run."""

import pytest
import torch

from fusion.training.log import read_metrics
from tests.training.test_trainer import losses, make, state


def test_a_part_that_hardly_learns_stays_and_the_others_move(tmp_path):
    trainer = make(tmp_path, epochs=1, part_learning_rates={"map": {"t": 1e-12}})
    before = state(trainer)
    trainer.fit()
    moved = {n: (t - before[n]).abs().max().item() for n, t in state(trainer).items()}
    assert moved["map.t.weight"] < 1e-9 < 1e-3 < moved["map.v.weight"]
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert rows[0]["learning_rate"] == pytest.approx(0.05 * 0.5 * (1 + 2**-0.5), rel=0.5)


def test_equal_rates_train_as_one_does(tmp_path):
    rates = {"map.t": 0.05, "norm": 0.05}
    make(tmp_path / "parts", epochs=1, part_learning_rates=rates).fit()
    make(tmp_path / "one", epochs=1).fit()
    one, parts = (dict(losses(tmp_path / name)) for name in ("one", "parts"))
    assert [float.fromhex(v) for v in parts.values()] == pytest.approx(
        [float.fromhex(v) for v in one.values()], rel=1e-6
    )


def test_only_matrices_decay_if_that_is_asked(tmp_path):
    settings = {"optimizer": "adamw", "weight_decay": 0.5, "epochs": 1}
    trainer = make(tmp_path, **settings, decay="matrices")
    before = state(trainer)
    trainer.fit()
    after = state(trainer)
    # No loss needs it, so its gradient is 0 and decay alone moves it.
    assert not after["unused.weight"].equal(before["unused.weight"])
    assert after["unused.bias"].equal(before["unused.bias"])


def test_a_run_with_parts_goes_on(tmp_path):
    settings = {"part_learning_rates": {"map": 0.01}, "decay": "matrices"}
    whole = make(tmp_path / "whole", **settings, epochs=2)
    whole.fit()
    calls = []

    def die(model):
        calls.append(model)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return {"score": 0.0}

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "cut", **settings, epochs=2, evaluate=die).fit()
    cut = make(tmp_path / "cut", **settings, epochs=2, resume=True)
    cut.fit()
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


def test_without_the_settings_a_checkpoint_is_as_before(tmp_path):
    trainer = make(tmp_path, epochs=1)
    trainer.fit()
    saved = torch.load(tmp_path / "last" / "trainer.pt")
    (group,) = saved["optimizer"]["param_groups"]
    assert "part" not in group
    saved.pop("waited")  # which older checkpoints lack
    torch.save(saved, tmp_path / "last" / "trainer.pt")
    (tmp_path / "last" / "manifest.json").unlink()
    resumed = make(tmp_path, epochs=1, resume=True)
    assert (resumed.epoch, resumed.best.waited) == (1, 0)
