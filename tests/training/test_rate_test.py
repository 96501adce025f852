"""Runs of a learning rate range test."""

import math

import pytest

from fusion.training.rate_choice import read_curve
from fusion.training.rate_test import RangeTest, growing_rates
from tests.training.test_trainer import make, state

PARTS = ("", "map.t")


@pytest.fixture
def test(tmp_path):
    trainer = make(tmp_path, part_learning_rates={"map.t": 1})
    range_test = RangeTest(trainer, 100)
    yield range_test
    range_test.close()
    assert not [*tmp_path.glob("[!.]*")]  # nothing is written


def growing(steps, **fixed):
    rates = growing_rates(steps)
    return [{part: fixed.get(part, rate) for part in PARTS} for rate in rates]


def test_rates_grow_by_the_same_factor():
    rates = growing_rates(9)
    assert rates == pytest.approx([10.0**power for power in range(-7, 2)])
    with pytest.raises(ValueError, match="at least 2 steps; got 1"):
        growing_rates(1)


def test_a_run_restores_weights_statistics_and_optimizer(test):
    trainer = test.trainer
    before, moments = state(trainer), str(trainer.optimizer.state_dict())
    first = test.run(0, growing(12))
    assert len(first) == 12
    assert all(tensor.equal(before[name]) for name, tensor in state(trainer).items())
    assert str(trainer.optimizer.state_dict()) == moments
    assert (trainer.epoch, trainer.batch) == (0, 0)
    assert test.run(0, growing(12)) == first  # the same batches and random numbers
    assert test.run(1, growing(12)) != first


def test_a_loss_is_that_after_the_step_with_its_rate(test):
    still = [dict.fromkeys(PARTS, 0.0)] * 3
    control = test.run(0, still)
    moved = test.run(0, [*still[:1], dict.fromkeys(PARTS, 0.1), *still[:1]])
    assert moved[0] == control[0]
    assert moved[1] != control[1]


def test_only_the_tested_part_learns(test):
    trainer, seen = test.trainer, []
    restore = test._restore
    test._restore = lambda: (seen.append(state(trainer)), restore())
    before = state(trainer)
    test.run(0, [{"": 0.0, "map.t": rate} for rate in growing_rates(8)])
    moved = {name for name, tensor in seen[0].items() if not tensor.equal(before[name])}
    assert {name for name in moved if "norm" not in name} == {"map.t.weight", "map.t.bias"}


def test_a_run_ends_when_it_is_much_worse_than_its_control(test):
    control = test.run(0, growing(4))
    assert test.run(0, growing(4), control) == control
    assert test.run(0, growing(4), [value / 2 for value in control]) == control[:1]
    better = [control[0] + 5, control[1] - 1, *control[2:]]  # what is lost was gained before
    assert test.run(0, growing(4), better) == control


def test_a_run_ends_when_its_loss_is_not_finite(test):
    take = test.trainer.take_step
    test.trainer.take_step = lambda batch: (take(batch)[0] * math.nan, {})
    assert len(test.run(0, growing(4))) == 1


def test_a_rate_that_learns_is_found(test):
    control = test.run(0, [dict.fromkeys(PARTS, 0.0)] * 40)
    curve = read_curve(growing_rates(40), test.run(0, growing(40), control), control)
    assert 1e-3 < curve.recommended < 1
    assert curve.diverges is None or curve.diverges >= 10 * curve.recommended
