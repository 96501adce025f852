import importlib

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from fusion.losses import mms, nce
from fusion.losses.contrastive import contrast
from tests.losses import plain


def pair(count, width):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, count, width, generator=generator, dtype=torch.float64)


def dots(x, y, margin=0.001, **words):
    """Masked margin softmax of dot products."""
    return mms(x, y, margin, normalize=False, **words)


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


@pytest.mark.parametrize("loss", [nce, mms, dots])
def test_batches_that_do_not_pair_up_are_refused(loss):
    with pytest.raises(ValueError, match=r"got \(6, 4\), \(5, 4\)"):
        loss(pair(6, 4)[0], pair(5, 4)[0])


KINDS = [(nce, plain.nce, {"temperature": t}) for t in (0.004, 0.02, 0.05, 1.0)]
KINDS += [(mms, plain.mms, {"margin": m}) for m in (-0.2, 0.0, 0.3)]
KINDS += [(dots, plain.mms_dot, {"margin": m}) for m in (-0.2, 0.0, 0.3)]


def value_and_gradients(loss, x, y, **setting):
    x, y = x.clone().requires_grad_(), y.clone().requires_grad_()
    value = loss(x, y, **setting)
    return value.detach(), *torch.autograd.grad(value, (x, y))


@pytest.mark.parametrize(("loss", "definition", "setting"), KINDS)
@pytest.mark.parametrize("tile", [None, 1, 3, 4, 9, 100])
def test_tiles_change_neither_value_nor_gradient(loss, definition, setting, tile):
    x, y = pair(9, 4)
    expected = value_and_gradients(definition, x, y, **setting)
    torch.testing.assert_close(value_and_gradients(loss, x, y, tile=tile, **setting), expected)


@pytest.mark.parametrize(("loss", "definition", "setting"), KINDS)
@pytest.mark.parametrize("tile", [None, 4])
def test_float32_is_as_exact_as_float32_can_be(loss, definition, setting, tile):
    x, y = pair(50, 16)
    expected = value_and_gradients(definition, x, y, **setting)
    got = value_and_gradients(loss, x.float(), y.float(), tile=tile, **setting)
    for ours, exact in zip(got, expected, strict=True):
        deviation = (ours - exact).abs().max() / exact.abs().max()
        assert deviation < 1e-6 / min(1, setting.get("temperature", 1))


@pytest.mark.parametrize("tile", [None, 1, 4])
@pytest.mark.parametrize("loss", [nce, mms, dots])
def test_pairs_that_are_not_valid_might_as_well_not_be_there(loss, tile):
    x, y = pair(9, 4)
    x[0] = 0  # the embedding of a clip that lacks a modality
    valid = torch.tensor([0, 1, 1, 0, 1, 1, 1, 0, 1], dtype=torch.bool)
    value, *gradients = value_and_gradients(loss, x, y, valid=valid, tile=tile)
    expected, *few = value_and_gradients(loss, x[valid], y[valid])
    torch.testing.assert_close(value, expected)
    for gradient, part in zip(gradients, few, strict=True):
        torch.testing.assert_close(gradient[valid], part)
        assert not gradient[~valid].any()


@pytest.mark.parametrize("tile", [None, 4])
@pytest.mark.parametrize("normalize", [True, False])
def test_losses_of_several_pairs_each_count_their_own_clips(normalize, tile):
    """What one loss leaves out and another reads is large, and must not reach the former's sums."""
    x, y, z = torch.cat([pair(9, 4), pair(9, 4)[:1].flip(1)])
    valid = torch.tensor([[0, 1, 1, 0, 1, 1, 1, 0, 1], [1, 1, 1, 1, 0, 0, 1, 1, 1]]).bool()
    x[0], z[3] = 1000, -1000
    sides = [side.requires_grad_() for side in (x, y, z)]
    factors = torch.tensor([1.0, 3.0], dtype=torch.float64)
    value, values, counts = contrast(
        sides, [(0, 1), (0, 2)], 2.0, 0.1, valid, tile, normalize, lambda clips: factors
    )
    assert counts.tolist() == [6, 7]
    expected = []
    for other, rows in [(y, valid[0]), (z, valid[1])]:
        a, b = (F.normalize(s, dim=-1) if normalize else s for s in (x[rows], other[rows]))
        expected.append(plain.mms_dot(2 * a, b, 0.2))
    torch.testing.assert_close(values, torch.stack(expected))
    torch.testing.assert_close(value, expected[0] + 3 * expected[1])
    torch.testing.assert_close(
        torch.autograd.grad(value, sides),
        torch.autograd.grad(expected[0] + 3 * expected[1], sides),
    )


@pytest.mark.parametrize("loss", [nce, mms, dots])
def test_no_valid_pair_gives_zero_and_no_gradient(loss):
    x, y = pair(4, 3)
    none = torch.zeros(4, dtype=torch.bool)
    for result in value_and_gradients(loss, x, y, valid=none):
        assert not result.any()


def test_a_perfect_match_never_has_a_negative_loss():
    x = torch.eye(40)
    assert nce(x, x).item() >= 0


@pytest.mark.parametrize("temperature", [0, -1, 0.001, float("nan")])
def test_temperatures_that_no_number_can_hold_are_refused(temperature):
    with pytest.raises(ValueError, match="at least 0.003; got"):
        nce(*pair(3, 2), temperature)


def kept_for_backward(loss):
    """Bytes of the tensors that autograd keeps, each storage once."""
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        value = loss()
    assert value.requires_grad
    return sum(kept.values())


def test_a_tiled_loss_keeps_no_similarity_matrix():
    x, y = (side.float().requires_grad_() for side in pair(512, 4))
    matrix = 512 * 512 * 4  # bytes
    assert kept_for_backward(lambda: plain.nce(x, y, 0.05)) > 2 * matrix
    assert kept_for_backward(lambda: nce(x, y)) < matrix / 8
    assert kept_for_backward(lambda: nce(x, y, tile=32)) < matrix / 8


def test_dot_products_are_never_kept():
    x, y = (side.float().requires_grad_() for side in pair(512, 4))
    assert kept_for_backward(lambda: dots(x, y)) < 512 * 512 * 4 / 8


@pytest.mark.parametrize("scale", [1e-3, 30.0])
def test_dot_products_may_be_large(scale):
    """Far beyond what fits into the exponential of a float32."""
    x, y = (scale * side for side in pair(20, 16))
    expected = value_and_gradients(plain.mms_dot, x, y, margin=0.001)
    got = value_and_gradients(dots, x.float(), y.float(), tile=7)
    for ours, exact in zip(got, expected, strict=True):
        assert (ours - exact).abs().max() <= 1e-5 * exact.abs().max()


def largest_matrix(loss):
    """Numbers of the largest tensor that is made."""
    largest = 0

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                largest = max(largest, result.numel())
            return result

    with Sizes():
        loss().backward()
    return largest


def test_a_large_loss_is_tiled_by_itself(monkeypatch):
    x, y = (side.float().requires_grad_() for side in pair(512, 4))
    module = importlib.import_module("fusion.losses.contrastive")
    assert largest_matrix(lambda: nce(x, y)) == 512 * 512
    monkeypatch.setattr(module, "KEPT_BYTES", 512 * 512 * 4 - 1)
    monkeypatch.setattr(module, "TILE_BYTES", 32 * 512 * 4)
    assert largest_matrix(lambda: nce(x, y)) == 32 * 512


@pytest.mark.parametrize(
    ("pairs", "columns"),
    [
        ([(0, 1)], 1),
        ([(0, 1), (0, 2), (1, 2)], 2),
        ([(0, 1), (0, 2), (1, 2), (0, 5), (1, 4), (2, 3)], 3),  # EAO: six lists, five on the right
    ],
)
def test_few_lists_are_gathered(pairs, columns):
    module = importlib.import_module("fusion.losses.contrastive")
    turned = module._orient(pairs)
    assert [{*pair} for pair in turned] == [{*pair} for pair in pairs]
    assert len({right for _, right in turned}) == columns


@pytest.mark.parametrize("tile", [None, 4])
@pytest.mark.parametrize("loss", [nce, mms, dots])
def test_autocast_does_not_reach_the_sums(loss, tile):
    x, y = (side.float() for side in pair(50, 16))
    expected = value_and_gradients(loss, x, y, tile=tile)
    with torch.autocast("cpu", torch.bfloat16):
        got = value_and_gradients(loss, x, y, tile=tile)
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


@pytest.mark.parametrize("loss", [nce, mms, dots])
def test_what_is_not_valid_may_be_anything(loss):
    x, y = pair(6, 4)
    valid = torch.tensor([1, 1, 0, 1, 1, 1], dtype=torch.bool)
    expected = value_and_gradients(loss, x, y, valid=valid)
    x[2], y[2] = float("nan"), float("inf")
    got = value_and_gradients(loss, x, y, valid=valid)
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


@pytest.mark.parametrize("loss", [nce, mms, dots])
def test_no_pair_at_all_is_a_loss_of_zero(loss):
    x, y = pair(0, 4)
    assert [result.sum().item() for result in value_and_gradients(loss, x, y)] == [0, 0, 0]


def test_margins_wider_than_cosines_are_refused():
    with pytest.raises(ValueError, match="margin must be between -2 and 2.* got 120"):
        mms(*pair(3, 2), 120)


@pytest.mark.parametrize("loss", [nce, mms, dots])
def test_nothing_is_read_back_from_the_device(loss):
    x, y = (side.to("meta") for side in pair(6, 4))  # meta tensors have no values to read
    valid = torch.ones(6, dtype=torch.bool, device="meta")
    assert all(result.is_meta for result in value_and_gradients(loss, x, y, valid=valid))
