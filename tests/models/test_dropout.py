"""Dropout by clip: chance, and nothing that a cut could change."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fusion.models import dropout as module
from fusion.models.dropout import FIRST, GOLDEN, SECOND, ClipDropout
from fusion.tokens import Tokens

LENGTHS = (3, 0, 5, 1)
SEEDS = torch.tensor([5, 2**62, -7, 5])


def tokens(lengths=LENGTHS, width=400):
    return Tokens.pack([torch.ones(length, width) for length in lengths])


def test_so_many_values_are_left_out_and_the_others_scaled_up():
    values = ClipDropout(0.3).train()(tokens([50] * 4), SEEDS).values
    assert values.unique().tolist() == pytest.approx([0, 1 / 0.7], rel=1e-5)
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


MASK = 2**64 - 1


def mixed(number):
    """splitmix64, in plain numbers."""
    for shift, factor in ((30, FIRST), (27, SECOND), (31, 1)):
        number = ((number & MASK) ^ ((number & MASK) >> shift)) * factor
    return number & MASK


def by_hand(x, seeds, probability):
    """Drop one value after the other."""
    least, made = round(probability * 2**16), []
    for part, seed in zip(x.values.split(x.lengths.tolist()), seeds, strict=True):
        for place, row in enumerate(part.tolist()):
            key = mixed(mixed(seed) + place)
            for column, value in enumerate(row):
                product = (key ^ mixed(column // 4 * GOLDEN)) * FIRST & MASK
                product ^= product >> 32
                draw = product >> 16 * (column % 4) & 0xFFFF
                signed = draw - 2**16 * (draw >= 2**15)
                kept = signed >= least - 2**15
                made.append(value * 2**16 / (2**16 - least) if kept else 0.0)
    return torch.tensor(made, dtype=torch.float64).view_as(x.values)


@pytest.mark.parametrize("width", [1, 7, 8])
@pytest.mark.parametrize("tile", [1, 2**18])
@pytest.mark.parametrize("probability", [0.1, 0.5, 0.99999999])
def test_it_is_what_is_written_down_one_value_after_the_other(
    monkeypatch, width, tile, probability
):
    monkeypatch.setattr(module, "TILE", (tile, tile))
    values = torch.randn(sum(LENGTHS), width, dtype=torch.float64).requires_grad_()
    x = Tokens.pack([torch.zeros(length, width) for length in LENGTHS]).replace(values)
    y = ClipDropout(probability).train()(x, SEEDS).values
    least = min(round(probability * 2**16), 2**16 - 1) / 2**16
    expected = by_hand(x, SEEDS.tolist(), least)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=0)
    (gradient,) = torch.autograd.grad(y.sum(), values)
    torch.testing.assert_close(gradient, expected / values, rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_takes_less_memory_than_its_input(monkeypatch, dtype):
    monkeypatch.setattr(module, "TILE", (2**12, 2**12))
    x = tokens([64] * 4, 256)
    x = x.replace(x.values.to(dtype).requires_grad_())
    kept, made = {}, []

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    class Made(TorchDispatchMode):
        """Notes the bytes of each new storage."""

        def __torch_dispatch__(self, function, types, arguments=(), further=None):
            result = function(*arguments, **(further or {}))
            if not isinstance(result, torch.Tensor):
                return result
            storage = result.untyped_storage()
            if all(storage.data_ptr() != one.data_ptr() for one in made):
                made.append(storage)
            return result

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda y: y), Made():
        ClipDropout(0.5).train()(x, SEEDS)
    output, *beside = sorted((storage.nbytes() for storage in made), reverse=True)
    count = x.values.numel()
    assert output == x.values.nbytes
    assert beside[0] == sum(kept.values()) == count  # a byte for each value
    assert beside[1] <= 2 * 2**12  # a tile at a time
