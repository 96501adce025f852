"""The fast model against the plain one: outputs, loss and gradients of every published variant."""

import functools

import pytest
import torch

from fusion.models import eao_reference
from fusion.models.transformer import GatedProjection
from tests import golden_cases as golden
from tests.losses import plain

ROUNDING = 2.0**-24  # of float32
CHANGES = {  # what nobody published
    "final_norm": {"final_norm": True},
    "max": {"pool": "max"},
    "token_norm": {"token_norm": False},
}
CHANGES["final_norm and max"] = CHANGES["final_norm"] | CHANGES["max"]
PUBLISHED = golden.case_names("eao_")
CASES = [*PUBLISHED, "eao_depth2_mlp4 with final_norm", "eao_cls_token with final_norm"]
CASES += ["eao_tva with max", "eao_depth0 with max", "eao_depth2_mlp4 with final_norm and max"]


@functools.cache
def run(name, fast, dtype=torch.float32, precision=None, skip_incomplete=False, noise=0.0):
    published, _, change = name.partition(" with ")
    case, expected = golden.read_case(published)
    combinations = golden.combinations_of(expected, "eval")
    model = golden.build_model(case, combinations, **CHANGES.get(change, {}))
    model = model.to(dtype).train()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight *= 1 + noise * torch.randn(weight.shape, generator=generator, dtype=dtype)
    inputs = golden.read_inputs(case, model.modalities)
    inputs = {m: tokens.replace(tokens.values.to(dtype)) for m, tokens in inputs.items()}
    loss = golden.build_loss(case, model)
    present = {m: tokens.present for m, tokens in inputs.items()}
    with torch.autocast("cpu", precision, enabled=precision is not None):
        if fast:
            embeddings = model(inputs, skip_incomplete=skip_incomplete)
        else:
            embeddings = eao_reference.embed(model, inputs)
    embeddings = {c: e.to(dtype) for c, e in embeddings.items()}
    if fast:
        value, _ = loss(embeddings, present)
    else:
        value = plain.combinatorial_loss(loss, embeddings, present)
    value.backward()
    none = {n: torch.zeros_like(p) for n, p in model.named_parameters()}
    gradients = {n: none[n] if p.grad is None else p.grad for n, p in model.named_parameters()}
    return embeddings | {"loss": value.detach()}, gradients


def largest_deviation(ours, theirs):
    """Largest difference of two sets of tensors, in units of the largest number of each tensor."""
    return max(
        ((ours[k] - theirs[k]).abs().max() / theirs[k].abs().max().clamp(min=1e-9)).item()
        for k in theirs
        if theirs[k].abs().max() > 1e-7
    )


def test_the_cases_are_all_there():
    assert len(PUBLISHED) == 17


@pytest.mark.parametrize("name", CASES)
def test_in_float64_nothing_but_rounding_differs(name):
    (outputs, gradients), (plain_outputs, plain_gradients) = (
        run(name, fast, torch.float64) for fast in (True, False)
    )
    assert largest_deviation(outputs, plain_outputs) < 1e-12
    assert largest_deviation(gradients, plain_gradients) < 1e-10


@pytest.mark.parametrize("name", CASES)
def test_leaving_out_what_the_loss_does_not_read_changes_neither_loss_nor_gradient(name):
    outputs, gradients = run(name, True, torch.float64, skip_incomplete=True)
    plain_outputs, plain_gradients = run(name, False, torch.float64)
    torch.testing.assert_close(outputs["loss"], plain_outputs["loss"], rtol=1e-12, atol=0)
    assert largest_deviation(gradients, plain_gradients) < 1e-10


@pytest.mark.parametrize("rows", [1, 2, 200])
def test_a_composed_gate_changes_nothing(rows):
    torch.manual_seed(0)
    projection = GatedProjection(3, 40).double()  # composed from four rows on
    x = torch.randn(rows, 3, dtype=torch.float64, requires_grad=True)
    results = []
    for y in (projection(x), eao_reference.project(projection, x)):
        inputs = (x, *projection.parameters())
        results.append((y.detach(), *torch.autograd.grad(y.square().sum(), inputs)))
    torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_in_float32_they_agree(name):
    """The unit is what rounding the weights to float32 does to each tensor, in float64.

    A float32 result has the error of such roundings, one for each layer and each partial sum: they
    add up like a random walk to at most 5 units here, and to 22 units of error in the gradients of
    the first layers, which lie below twenty others.
    """
    exact, rounded = (run(name, False, torch.float64, noise=noise) for noise in (0.0, ROUNDING))
    runs = (run(name, True), run(name, False), exact, rounded, (16, 64))
    for fast, slow, right, moved, units in zip(*runs, strict=True):  # outputs, then gradients
        for key, value in right.items():
            if (largest := value.abs().max()) > 1e-7:
                unit = (moved[key] - value).abs().max() + ROUNDING * largest
                assert (fast[key] - slow[key]).abs().max() < units * unit, key


@pytest.mark.parametrize("name", CASES)
def test_the_fast_one_is_as_close_to_the_truth(name):
    """In float32 both are wrong by rounding; the fast one by no more than the plain one."""
    exact = run(name, False, torch.float64)[1]
    ours, theirs = (distance(run(name, fast)[1], exact) for fast in (True, False))
    assert ours < 1.5 * theirs + 1e-6


def distance(ours, theirs):
    """Length of the difference of two sets of tensors, in units of their length."""
    difference = sum(((ours[k] - theirs[k]) ** 2).sum() for k in theirs)
    return (difference / sum((theirs[k] ** 2).sum() for k in theirs)).sqrt().item()


@pytest.mark.parametrize("name", CASES)
def test_in_bfloat16_the_fast_one_is_no_further_from_the_truth(name):
    exact = run(name, False)
    fast, slow = (run(name, fast, precision=torch.bfloat16) for fast in (True, False))
    for ours, theirs, truth in zip(fast, slow, exact, strict=True):  # outputs, then gradients
        assert distance(ours, truth) < 1.1 * distance(theirs, truth)
