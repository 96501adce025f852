import pytest
import torch
from accelerate import Accelerator

from fusion.training.guard import NonFiniteGuard
from fusion.training.optim import make_optimizer


@pytest.mark.parametrize("max_norm", [None, 1.0])
@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_a_step_counts_only_if_its_gradient_is_finite(name, max_norm):
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = make_optimizer(name, [weight], 0.1, 0.0)
    guard = NonFiniteGuard(Accelerator(cpu=True), max_norm)
    moved, looks = [], []
    for gradient in ([1.0, 2.0], [float("nan"), 1.0], [float("inf"), 0.0], [1.0, 0.0]):
        before = weight.detach().clone()
        weight.grad = torch.tensor(gradient)
        guard.check([weight], optimizer)
        guard.count()
        optimizer.step()
        moved.append(not weight.detach().equal(before))
        looks.append(guard.look(5))
    assert moved == [True, False, False, True]
    said = "1 step up to step 5 left out, as the gradient was not finite"
    assert looks == [None, f"{said} (nan; 1 in a row)", f"{said} (inf; 2 in a row)", None]


def test_the_norm_that_is_told_is_that_of_the_step_left_out():
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer, guard = (
        make_optimizer("sgd", [weight], 0.1, 0.0),
        NonFiniteGuard(Accelerator(), None),
    )
    for gradient in (float("inf"), 1.0):
        weight.grad = torch.tensor([gradient])
        guard.check([weight], optimizer)
        guard.count()
    assert "not finite (inf; 0 in a row)" in guard.look(2)


def test_long_gradients_are_clipped():
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([3.0, 4.0])
    guard = NonFiniteGuard(Accelerator(cpu=True), 1.0)
    guard.check([weight], make_optimizer("sgd", [weight], 0.1, 0.0))
    torch.testing.assert_close(weight.grad, torch.tensor([0.6, 0.8]))
    assert guard.look(1) is None
