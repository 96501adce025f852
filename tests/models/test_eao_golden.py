"""Every number that the published EAO gives, from its weights through our conversion."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests import golden_cases as golden

CASES = golden.case_names("eao_")
TRAINED = [name for name in CASES if "train.loss" in golden.read_case(name)[1]]


def run(name, mode):
    case, expected = golden.read_case(name)
    model = golden.build_model(case, golden.combinations_of(expected, mode)).train(mode == "train")
    inputs = golden.read_inputs(case, model.modalities)
    loss = golden.build_loss(case, model)
    embeddings = model(inputs)
    value, terms = loss(embeddings, {m: tokens.present for m, tokens in inputs.items()})
    return case, expected, model, embeddings, value, terms


def test_the_cases_are_all_there():
    assert len(CASES) == 17
    assert len(TRAINED) == 13


RUNS = [(name, "eval") for name in CASES] + [(name, "train") for name in TRAINED]


@pytest.mark.parametrize(("name", "mode"), RUNS)
def test_embeddings_and_loss(name, mode):
    _, expected, _, embeddings, value, terms = run(name, mode)
    deviation = 0.0
    for combination, embedding in embeddings.items():
        published = torch.from_numpy(expected[f"{mode}.{golden.published_embedding(combination)}"])
        if len(combination) == 1 or name == "eao_cls_token":
            published = F.normalize(published, dim=-1)  # saved as it left its head
        torch.testing.assert_close(embedding, published, rtol=0, atol=1e-5)
        deviation = max(deviation, (embedding - published).abs().max().item())
    relative = abs(value.item() / expected[f"{mode}.loss"].item() - 1)
    print(f"{name} {mode}: embeddings {deviation:.1e}, loss {relative:.1e} (relative)")
    torch.testing.assert_close(value.item(), expected[f"{mode}.loss"].item(), rtol=1e-4, atol=0)
    for term, term_value in terms.items():
        left, right = term.split("|")
        key = left + right if len(left + right) == 2 else f"{left}_{right}"
        published = expected[f"{mode}.loss.{key}"].item()
        torch.testing.assert_close(term_value.item(), published, rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", CASES)
def test_late_averages(name):
    _, expected, _, embeddings, _, _ = run(name, "eval")
    for pair in ["t+v", "t+a", "v+a"]:
        left, right = pair.split("+")
        if f"eval.{pair}_embed" in expected:
            published = torch.from_numpy(expected[f"eval.{pair}_embed"])
            average = (embeddings[left] + embeddings[right]) / 2
            torch.testing.assert_close(average, published, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", TRAINED)
def test_gradient_norms_and_running_statistics(name):
    case, expected, model, _, value, _ = run(name, "train")
    value.backward()
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    seen = set()
    for key in expected.files:
        kind, _, published_name = key.partition(".")
        if kind not in ("grad_norm", "buffer_after"):
            continue
        ours = golden.our_name(case, published_name)
        if ours is None or (ours not in parameters and ours not in buffers):
            assert ours is None or name == "eao_text_video", f"{published_name} got lost"
            continue
        seen.add(ours)
        if kind == "grad_norm":
            grad = parameters[ours].grad  # None of a masking token that no clip needs
            got = 0.0 if grad is None else grad.norm().item()
            assert got == pytest.approx(expected[key].item(), rel=1e-4, abs=1e-7), published_name
        else:
            np.testing.assert_allclose(buffers[ours].numpy(), expected[key], rtol=1e-5, atol=1e-6)
    unseen = {n for n, p in parameters.items() if p.grad is not None and p.grad.norm() > 0} - seen
    assert not unseen
