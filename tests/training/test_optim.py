import pytest
import torch

from fusion.training.optim import make_optimizer, make_schedule


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
