"""Gradients that are sent while the last chunk is computed; two ranks that compute the same."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from fusion.distributed import GradientBuckets, buckets, collectives, exchange


@pytest.fixture
def sent(monkeypatch):
    """Let this process be one of two alike; give the sizes of what it sends, and where it is."""
    sizes = []

    class Arrived:
        def wait(self):
            sizes.append("arrived")

    def begin(kind, source, target):
        sizes.append(source.numel())
        target.mul_(2)
        return Arrived()

    monkeypatch.setattr(exchange, "begin", begin)
    monkeypatch.setattr(buckets, "world_size", lambda: 2)
    monkeypatch.setattr(collectives, "BUCKET_BYTES", 4 * 12)
    return sizes


def make_model():
    torch.manual_seed(0)
    return nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)])


def backward(model, used=(0, 1, 2)):
    x = torch.ones(2, 3)
    for place in used:
        x = model[place](x).tanh()
    x.sum().backward()


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("used", [(0, 1, 2), (0, 2), (1,)])
def test_means_are_those_of_the_plain_way(sent, overlap, dtype, used):
    model, plain = make_model(), make_model()
    some = GradientBuckets(model.parameters(), overlap, dtype)
    for _ in range(2):  # steps
        for each in (model, plain):
            each.zero_grad()
            backward(each, used)  # a first chunk
        assert not sent
        with some.last_chunk():
            backward(model, used)
            sent.append("computed")
        some.finish()
        backward(plain, used)
        before = [x for x in sent[: sent.index("computed")] if x != "arrived"]
        # In reverse order, and none before the one ahead of it, which may have no gradient.
        assert len(before) == (3 if len(used) == 3 else 1 if 2 in used else 0) * overlap
        assert [x for x in sent if isinstance(x, int)] == [12, 12, 12]
        for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
            expected = torch.zeros_like(theirs) if theirs.grad is None else theirs.grad
            close = {"rtol": 1e-2, "atol": 1e-6} if dtype else {"rtol": 0, "atol": 0}
            torch.testing.assert_close(ours.grad, expected, **close)
        sent.clear()


def test_what_was_abandoned_is_waited_for_and_sent_anew(sent):
    model, plain = make_model(), make_model()
    some = GradientBuckets(model.parameters())
    with some.last_chunk():
        backward(model)
    some.abandon()
    assert sent == [12, 12, 12, "arrived", "arrived", "arrived"]
    model.zero_grad()
    with some.last_chunk():
        backward(model)
    some.finish()
    backward(plain)
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_a_gradient_that_comes_twice_is_an_error(sent):
    model = make_model()
    some = GradientBuckets(model[2].parameters())
    x = torch.ones(2, 3, requires_grad=True)
    for _ in range(2):
        x = checkpoint(model[2], x, use_reentrant=True)
    with pytest.raises(RuntimeError, match=r"twice .* trainer.overlap=false"), some.last_chunk():
        x.sum().backward()
