"""The recipe of training at scale: SGD, scaled rates, warm-up in epochs, steps; against torch's."""

import copy

import pytest
import torch
from torch import nn

from fusion.training.optim import allocate_state, make_groups, make_optimizer, make_schedule
from fusion.training.settings import Settings

GIVEN = {"epochs": 10, "batch_size": 64, "learning_rate": 0.1}


def steps_of(model, optimizer, schedule, steps=12):
    torch.manual_seed(1)
    for _ in range(steps):
        loss = model(torch.randn(8, 4).double()).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if schedule is not None:
            schedule.step()
    return [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_with_momentum_is_torchs_plain_one(nesterov):
    """Also after the skipped step that allocates its state, which leaves momentum undefined."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)).double()
    twin, before = copy.deepcopy(model), copy.deepcopy(model)
    matrices = [p for p in twin.parameters() if p.ndim > 1]
    others = [p for p in twin.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    plain = torch.optim.SGD(groups, lr=0.2, momentum=0.9, nesterov=nesterov)
    ours = make_optimizer(
        "sgd", make_groups(model.named_parameters(), {}, False), 0.2, 0.1, 0.9, nesterov
    )
    allocate_state(ours)
    for state in ours.state.values():
        assert not state["momentum_buffer"].any()
    ours.found_inf = torch.zeros(())  # as the guard says of each gradient that is finite
    schedules = [make_schedule("cosine", o, 3, 12, 4) for o in (ours, plain)]
    results = [
        steps_of(*parts) for parts in zip((model, twin), (ours, plain), schedules, strict=True)
    ]
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)
    assert all(not p.equal(q) for p, q in zip(results[0], before.parameters(), strict=True))


def test_steps_drop_the_rate_after_their_epochs():
    """As torch's MultiStepLR, whose milestones are epochs; here an epoch has two steps."""
    weight = nn.Parameter(torch.zeros(1))
    ours = make_optimizer("sgd", [weight], 1.0, 0.0)
    schedule = make_schedule("steps", ours, 0, 12, 6, [2, 5])
    twin = torch.optim.SGD([weight], lr=1.0)
    plain = torch.optim.lr_scheduler.MultiStepLR(twin, [2, 5])
    for step in range(12):
        assert schedule.get_last_lr()[0] == pytest.approx(plain.get_last_lr()[0])
        ours.step(), twin.step(), schedule.step()
        if step % 2:
            plain.step()


def test_the_rate_grows_with_the_batch_and_the_warm_up_counts_epochs():
    settings = Settings(**GIVEN, learning_rate_batch=16, warmup_epochs=1.5)
    assert settings.rate_factor == 4 and settings.steps_of_warmup(10) == 15
    assert Settings(**GIVEN).rate_factor == 1
    assert Settings(**GIVEN, warmup_steps=7).steps_of_warmup(10) == 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"momentum": 0.9}, "momentum=0.9 is of sgd, but trainer.optimizer is adam"),
        ({"momentum": 1.0, "optimizer": "sgd"}, "momentum must be from 0 to below 1; got 1.0"),
        ({"nesterov": True, "optimizer": "sgd"}, "nesterov=true needs trainer.momentum"),
        ({"schedule": "steps"}, "schedule=steps and trainer.milestones"),
        ({"milestones": [3]}, "schedule=steps and trainer.milestones"),
        ({"schedule": "steps", "milestones": ["a"]}, r"milestones must be ascending .*'a'"),
        ({"schedule": "steps", "milestones": [True]}, "milestones must be ascending epochs"),
        ({"schedule": "steps", "milestones": [0, 2]}, "milestones must be ascending epochs"),
        ({"schedule": "steps", "milestones": [4, 2]}, "milestones must be ascending epochs"),
        ({"schedule": "steps", "milestones": [float("nan")]}, "milestones must be ascending"),
        ({"warmup_epochs": 1, "warmup_steps": 2}, "two warm-ups; leave one out"),
        ({"learning_rate_batch": 0}, "learning_rate_batch must be at least 1"),
    ],
)
def test_settings_that_contradict_one_another_are_one_line(change, message):
    with pytest.raises(ValueError, match=message) as caught:
        Settings(**GIVEN, **change)
    assert "\n" not in str(caught.value)
