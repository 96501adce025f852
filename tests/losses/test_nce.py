import pytest
import torch
import torch.nn.functional as F

from fusion.losses import mms, nce


def pair(count, width):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, count, width, generator=generator, dtype=torch.float64)


def by_hand(x, y, temperature, margin=0.0):
    """The definition, one query at a time."""
    total = 0.0
    for queries, keys in [(x, y), (y, x)]:
        for i, query in enumerate(queries):
            scores = F.cosine_similarity(query[None], keys)
            scores[i] -= margin
            scores = scores / temperature
            total -= scores[i] - scores.logsumexp(dim=0)
    return total / len(x)


@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_nce_equals_its_definition(temperature):
    x, y = pair(6, 4)
    expected = by_hand(x, y, temperature)
    torch.testing.assert_close(nce(x, y, temperature), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("margin", [0.0, 0.001, 0.5])
def test_mms_equals_its_definition(margin):
    x, y = pair(6, 4)
    expected = by_hand(x, y, 1.0, margin)
    torch.testing.assert_close(mms(x, y, margin), expected, rtol=1e-9, atol=0)


def test_the_directions_are_added_not_averaged():
    x = torch.zeros(4, 3).index_fill_(1, torch.tensor(0), 1.0)  # all alike: each guess is 1 in 4
    assert nce(x, x).item() == pytest.approx(2 * torch.tensor(4.0).log().item())


@pytest.mark.parametrize("loss", [nce, mms])
def test_batches_that_do_not_pair_up_are_refused(loss):
    with pytest.raises(ValueError, match=r"got \(6, 4\), \(5, 4\)"):
        loss(pair(6, 4)[0], pair(5, 4)[0])
