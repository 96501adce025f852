import pytest
import torch

from fusion.models import EAO
from fusion.models.batchnorm import GroupedBatchNorm, no_update, one_update


def spectra(count=12):
    generator = torch.Generator().manual_seed(0)
    scale = torch.arange(1.0, count + 1)[:, None, None, None]  # no two clips are alike
    x = torch.randn(count, 3, 1, 5, generator=generator, dtype=torch.float64) * scale
    return x.requires_grad_()


def make(plain=False, **changes):
    norm = torch.nn.BatchNorm2d(3) if plain else GroupedBatchNorm(3, **changes)
    norm = norm.double()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, 3.0]))
        norm.bias.copy_(torch.tensor([0.1, 0.2, 0.3]))
    return norm


def results(norm, x):
    y = norm(x)
    gradients = torch.autograd.grad((y**3).sum(), (x, norm.weight, norm.bias))
    return y.detach(), *gradients, norm.running_mean, norm.running_var, norm.num_batches_tracked


def test_without_a_group_it_is_plain_batchnorm():
    x = spectra()
    torch.testing.assert_close(results(make(), x), results(make(plain=True), x))


def test_each_group_is_normalised_by_itself():
    x = spectra()
    y, *gradients, mean, var, steps = results(make(group=4), x)
    parts = [results(make(plain=True), part) for part in x.split(4)]
    torch.testing.assert_close(y, torch.cat([part[0] for part in parts]))
    torch.testing.assert_close(gradients[1], sum(part[2] for part in parts))
    torch.testing.assert_close(mean, sum(part[4] for part in parts) / 3)
    torch.testing.assert_close(var, sum(part[5] for part in parts) / 3)
    assert steps == 1


@pytest.mark.parametrize("chunk", [4, 8, 12])
def test_a_cut_between_groups_changes_nothing(chunk):
    whole, cut, x = make(group=4), make(group=4), spectra()
    expected = whole(x)
    with one_update(cut):
        y = torch.cat([cut(part) for part in x.split(chunk)])
    torch.testing.assert_close(y, expected, rtol=0, atol=0)
    torch.testing.assert_close(dict(cut.named_buffers()), dict(whole.named_buffers()))


def test_a_cut_through_plain_batchnorm_does_change_it():
    x = spectra()
    y = torch.cat([make()(part) for part in x.split(4)])
    assert not torch.allclose(y, make()(x))


def test_frozen_statistics_are_used_and_left():
    norm, x = make(frozen=True), spectra()
    before = norm.running_mean.clone()
    torch.testing.assert_close(norm(x), norm.eval()(x))
    assert norm.running_mean.equal(before)


@pytest.mark.parametrize("ends", [one_update, no_update])
def test_a_step_that_fails_leaves_the_statistics(ends):
    norm = make(group=4)
    with pytest.raises(RuntimeError, match="no memory"), ends(norm):
        norm(spectra())
        raise RuntimeError("no memory")
    assert not norm.running_mean.any()
    norm(spectra())
    assert norm.num_batches_tracked == 1


def test_a_second_look_does_not_count():
    norm = make(group=4)
    with no_update(norm):
        norm(spectra())
    assert not norm.running_mean.any()


def test_a_batch_that_is_no_multiple_is_refused():
    with pytest.raises(ValueError, match="12 clips cannot be cut into groups of 5"):
        make(group=5)(spectra())


def test_the_setting_reaches_every_norm_of_the_encoder():
    encoder = {"name": "davenet", "version": 1, "num_frames": 16, "widths": [2, 2, 2, 2, 2]}
    encoder |= {"batchnorm_group": 2, "batchnorm_frozen": True}
    model = EAO({"audio": {"encoder": encoder}}, ["a"], 4, 4, num_heads=1)
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) == 1 + 8 * 2 + 4
    assert all(norm.group == 2 and norm.frozen for norm in norms)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"batchnorm_group": 0}, "batchnorm_group must be a number from 1 on; got 0"),
        ({"batchnorm_group": "16"}, "batchnorm_group must be a number from 1 on; got '16'"),
        ({"batchnorm_frozen": "no"}, "batchnorm_frozen must be true or false; got 'no'"),
    ],
)
def test_an_impossible_group_is_explained(setting, message):
    encoder = {"name": "davenet", "num_frames": 64, **setting}
    with pytest.raises(ValueError, match=message):
        EAO({"audio": {"encoder": encoder}}, ["a"], 4, 4, num_heads=1)
