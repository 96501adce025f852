"""The fast model against the plain one: outputs, loss and gradients of every published variant."""

import pytest
import torch

from tests import golden_cases as golden
from tests import plain

CASES = golden.case_names("eao_")


def run(name, fast, dtype=torch.float32, precision=None):
    case, expected = golden.read_case(name)
    model = golden.build_model(case, golden.combinations_of(expected, "eval")).to(dtype).train()
    inputs = golden.read_inputs(case, model.modalities)
    inputs = {m: tokens.replace(tokens.values.to(dtype)) for m, tokens in inputs.items()}
    loss = golden.build_loss(case, model)
    present = {m: tokens.present for m, tokens in inputs.items()}
    with torch.autocast("cpu", precision, enabled=precision is not None):
        embeddings = model(inputs) if fast else plain.embed(model, inputs)
    embeddings = {c: e.to(dtype) for c, e in embeddings.items()}
    if fast:
        value, _ = loss(embeddings, present)
    else:
        value = plain.combinatorial_loss(loss, embeddings, present)
    value.backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return embeddings | {"loss": value.detach()}, gradients


def largest_deviation(ours, theirs):
    """Largest difference of two sets of tensors, in units of the largest number of each tensor."""
    return max(
        ((ours[k] - theirs[k]).abs().max() / theirs[k].abs().max().clamp(min=1e-9)).item()
        for k in theirs
        if theirs[k].abs().max() > 1e-7
    )


def test_the_cases_are_all_there():
    assert len(CASES) == 17


@pytest.mark.parametrize("name", CASES)
def test_in_float64_nothing_but_rounding_differs(name):
    (outputs, gradients), (plain_outputs, plain_gradients) = (
        run(name, fast, torch.float64) for fast in (True, False)
    )
    assert largest_deviation(outputs, plain_outputs) < 1e-12
    assert largest_deviation(gradients, plain_gradients) < 1e-10


@pytest.mark.parametrize("name", CASES)
def test_in_float32_they_agree(name):
    (outputs, gradients), (plain_outputs, plain_gradients) = (
        run(name, fast) for fast in (True, False)
    )
    print(
        f"{name}: outputs {largest_deviation(outputs, plain_outputs):.1e},"
        f" gradients {largest_deviation(gradients, plain_gradients):.1e}"
    )
    assert largest_deviation(outputs, plain_outputs) < 2e-6
    assert largest_deviation(gradients, plain_gradients) < 2e-5


@pytest.mark.parametrize("name", CASES)
def test_the_fast_one_is_as_close_to_the_truth(name):
    """In float32 both are wrong by rounding; the fast one by no more than the plain one."""
    _, exact = run(name, False, torch.float64)
    errors = []
    for fast in (True, False):
        _, gradients = run(name, fast)
        difference = sum(((gradients[k] - exact[k]) ** 2).sum() for k in exact)
        errors.append((difference / sum((exact[k] ** 2).sum() for k in exact)).sqrt().item())
    assert errors[0] < 1.5 * errors[1] + 1e-6


@pytest.mark.parametrize("name", CASES)
def test_in_bfloat16_the_fast_one_is_no_further_from_the_truth(name):
    exact, _ = run(name, fast=False)
    deviations = [
        largest_deviation(run(name, fast, precision=torch.bfloat16)[0], exact)
        for fast in (True, False)
    ]
    assert deviations[0] < max(1.5 * deviations[1], 0.02)
