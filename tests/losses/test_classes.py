import pytest
import torch

from fusion.losses.classes import ClassLoss


def by_hand(logits, label, smoothing):
    """Of one clip: the target is 1 - smoothing, and smoothing is spread over all classes."""
    shares = [smoothing / len(logits) + (1 - smoothing) * (k == label) for k in range(len(logits))]
    total = sum(value.exp() for value in logits)
    return -sum(share * (value - total.log()) for share, value in zip(shares, logits, strict=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_a_mean_over_films_and_those_that_cannot_be_read_count_as_nothing(smoothing):
    logits = torch.randn(4, 5, dtype=torch.float32, generator=torch.Generator().manual_seed(0))
    logits.requires_grad_()
    labels, readable = torch.tensor([0, 4, 2, 2]), torch.tensor([True, True, False, True])
    loss = ClassLoss(["video"], smoothing)
    value, _ = loss({"classes": logits}, {"video": readable}, {"label": labels})
    expected = sum(by_hand(logits[i], int(labels[i]), smoothing) for i in (0, 1, 3)) / 4
    torch.testing.assert_close(value, expected)
    value.backward()
    assert not logits.grad[2].any() and logits.grad[0].any()
    assert not loss.compares_clips


def test_an_impossible_share_is_explained():
    with pytest.raises(ValueError, match="label_smoothing must be from 0 to below 1; got 1.5"):
        ClassLoss(["video"], 1.5)
