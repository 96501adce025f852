import pytest
import torch
from accelerate import Accelerator

from fusion.training.optim import NonFiniteGuard, make_groups, make_optimizer, make_schedule
from fusion.training.settings import Settings


def rates(name, warmup=0, steps=10, epochs=5):
    optimizer = make_optimizer("adam", [torch.nn.Parameter(torch.zeros(1))], 2.0, 0.0)
    schedule = make_schedule(name, optimizer, warmup, steps, epochs)
    values = []
    for _ in range(steps):
        values.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return values


def test_warm_up_rises_to_the_highest():
    assert rates("constant", warmup=4)[:5] == [0.5, 1.0, 1.5, 2.0, 2.0]


def test_linear_and_cosine_fall_to_nothing():
    assert rates("linear")[5] == pytest.approx(1.0)
    assert rates("cosine")[5] == pytest.approx(1.0)
    assert rates("cosine")[1] > rates("linear")[1]
    assert rates("linear", steps=100)[-1] < 0.03


def test_exponential_is_the_published_one():
    """Multiplied by 0.9 after each epoch; here an epoch has two steps."""
    expected = [2.0 * 0.9 ** (step // 2) for step in range(10)]
    assert rates("exponential") == pytest.approx(expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_optimizer("adm", [], 1, 0), "trainer.optimizer: unknown 'adm'; choose"),
        (lambda: make_schedule("step", None, 0, 1, 1), "trainer.schedule: unknown 'step'; choose"),
    ],
)
def test_unknown_names_are_explained(make, message):
    with pytest.raises(ValueError, match=message):
        make()


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


class Parts(torch.nn.Module):
    """Two encoders and a head, each with what decays and what does not."""

    def __init__(self):
        super().__init__()
        names = ("image", "images")
        self.encoders = torch.nn.ModuleDict({name: torch.nn.Linear(3, 2) for name in names})
        self.head = torch.nn.Linear(2, 2)
        self.token = torch.nn.Parameter(torch.zeros(1, 1, 3))
        self.head.bias.requires_grad_(False)


def sorted_into(rates, decays_all=True):
    """Give the names of each group, its part, its own rate and its own decay."""
    model = Parts()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [
        (group["part"], group.get("lr"), group.get("weight_decay"), *names_of(group, names))
        for group in make_groups(model.named_parameters(), rates, decays_all)
    ]


def names_of(group, names):
    return [names[id(parameter)] for parameter in group["params"]]


def test_the_longest_name_decides_the_rate_of_a_part():
    images = ("encoders.images.weight", "encoders.images.bias")
    image = ("encoders.image.weight", "encoders.image.bias")
    assert sorted_into({"encoders": 0.1, "encoders.image": 0.2}) == [
        ("", None, None, "token", "head.weight"),
        ("encoders.image", 0.2, None, *image),
        ("encoders", 0.1, None, *images),
    ]


def test_biases_frozen_parameters_and_single_tokens_do_not_decay_with_matrices():
    weights = ("encoders.image.weight", "encoders.images.weight", "head.weight")
    assert sorted_into({}, decays_all=False) == [
        ("", None, None, *weights),
        ("", None, 0.0, "token", "encoders.image.bias", "encoders.images.bias"),
    ]


def test_a_part_without_trained_parameters_is_explained():
    said = (
        "no trained parameter is in 'encoders.imag'; the parts are token, encoders.image,"
        " encoders.images, head.weight"
    )
    with pytest.raises(ValueError, match=said):
        make_groups(Parts().named_parameters(), {"encoders.imag": 1}, True)
    with pytest.raises(ValueError, match="in 'head.bias'"):  # it is frozen
        make_groups(Parts().named_parameters(), {"head.bias": 1}, True)


def test_the_schedule_scales_the_rate_of_each_part_even_if_none_is_left():
    rates = {"encoders": 0.1, "head": 0.4, "token": 0.8}
    groups = make_groups(Parts().named_parameters(), rates, True)
    optimizer = make_optimizer("adamw", groups, 2.0, 0.01)
    schedule = make_schedule("linear", optimizer, 0, 4, 1)
    optimizer.step()
    schedule.step()
    parts = {group["part"]: group["lr"] for group in optimizer.param_groups}
    assert parts == pytest.approx({"": 1.5, "encoders": 0.075, "head": 0.3, "token": 0.6})


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"part_learning_rates": {"a": {"b": 0}}}, r"part_learning_rates.a.b must be a number ab"),
        ({"part_learning_rates": {"a.b": "x"}}, r"must be a number above 0; got 'x'"),
        ({"decay": "matrix"}, "trainer.decay: unknown 'matrix'; choose from all, matrices"),
    ],
)
def test_settings_of_parts_are_checked(setting, message):
    with pytest.raises(ValueError, match=message):
        Settings(epochs=1, batch_size=1, learning_rate=1, **setting)
