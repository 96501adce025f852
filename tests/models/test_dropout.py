"""Dropout by clip: chance, and nothing that a cut could change."""

import pytest
import torch

from fusion.models.transformer import ClipDropout
from fusion.tokens import Tokens

LENGTHS = (3, 0, 5, 1)
SEEDS = torch.tensor([5, 2**62, -7, 5])


def tokens(lengths=LENGTHS, width=400):
    return Tokens.pack([torch.ones(length, width) for length in lengths])


def test_so_many_values_are_left_out_and_the_others_scaled_up():
    values = ClipDropout(0.3).train()(tokens([50] * 4), SEEDS).values
    assert values.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert (values == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    for dim in (0, 1):  # no row and no column is favoured
        shares = (values == 0).float().mean(dim)
        assert shares.std().item() < 1.3 * (0.3 * 0.7 / values.shape[dim]) ** 0.5


def test_neighbours_have_nothing_in_common():
    dropout = ClipDropout(0.5).train()
    a = dropout(tokens([100]), torch.tensor([8])).values > 0
    others = {
        "the next seed": dropout(tokens([100]), torch.tensor([9])).values > 0,
        "another stream": dropout(tokens([100]), torch.tensor([8]), stream=1).values > 0,
        "the next token": a.roll(1, 0),
        "the next feature": a.roll(1, 1),
    }
    for name, b in others.items():
        assert (a == b).float().mean().item() == pytest.approx(0.5, abs=0.02), name


def test_a_clip_has_its_choices_wherever_it_is():
    dropout = ClipDropout(0.5).train()
    together = dropout(tokens(), SEEDS).values.split(LENGTHS)
    for clip, length in enumerate(LENGTHS):
        alone = dropout(tokens([length, 9]), SEEDS[[clip, 0]]).values[:length]
        assert alone.equal(together[clip])


def test_without_seeds_torch_draws_them():
    dropout = ClipDropout(0.5).train()
    first, second = (dropout(tokens()).values for _ in range(2))
    assert not first.equal(second)
    torch.manual_seed(3)
    third = dropout(tokens()).values
    torch.manual_seed(3)
    assert dropout(tokens()).values.equal(third)


def test_evaluation_leaves_nothing_out():
    x = tokens()
    assert ClipDropout(0.5).eval()(x, SEEDS) is x
    assert ClipDropout(0.0).train()(x, SEEDS) is x


@pytest.mark.parametrize("probability", [-0.1, 1.0, float("nan")])
def test_impossible_probabilities_are_refused(probability):
    with pytest.raises(ValueError, match="dropout must be at least 0 and below 1; got"):
        ClipDropout(probability)
