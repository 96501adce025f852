"""What only a CUDA device can show; run with ``pytest -m gpu``."""

import json

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator

from fusion.models import eao_reference
from fusion.training.optim import NonFiniteGuard, make_optimizer
from tests import golden_cases as golden
from tests.tiny import write_config
from tests.training import cuts

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def exact_arithmetic():
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = True


@pytest.mark.parametrize("name", golden.case_names("eao_"))
def test_published_embeddings_and_loss(name):
    case, expected = golden.read_case(name)
    model = golden.build_model(case, golden.combinations_of(expected, "eval")).cuda().eval()
    inputs = {m: t.to("cuda") for m, t in golden.read_inputs(case, model.modalities).items()}
    embeddings = model(inputs)
    for combination, embedding in embeddings.items():
        published = torch.from_numpy(expected[f"eval.{golden.published_embedding(combination)}"])
        if len(combination) == 1 or name == "eao_cls_token":
            published = F.normalize(published, dim=-1)
        torch.testing.assert_close(embedding.cpu(), published, rtol=0, atol=1e-5)
    value, _ = golden.build_loss(case, model)(embeddings, {m: t.present for m, t in inputs.items()})
    assert value.item() == pytest.approx(expected["eval.loss"].item(), rel=1e-4)


@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
def test_a_run_trains_on_the_device_and_evaluates(tool, tmp_path, precision):
    config = write_config(tmp_path, trainer={"mixed_precision": precision})
    code, _, errors = tool("tools/train.py", config)
    assert code == 0, errors
    assert "going on in full precision" not in errors
    result = json.loads((tmp_path / "run" / "results.json").read_text())
    assert len(result["directions"]) == 18


def tiny_step(precision):
    """One forward and backward pass of the fast and of the plain model on the device."""
    case, expected = golden.read_case("eao_tva_full")
    combinations = golden.combinations_of(expected, "eval")
    results = []
    for fast in (True, False):
        model = golden.build_model(case, combinations).cuda().train()
        inputs = {m: t.to("cuda") for m, t in golden.read_inputs(case, model.modalities).items()}
        loss = golden.build_loss(case, model)
        with torch.autocast("cuda", precision, enabled=precision is not None):
            embeddings = model(inputs) if fast else eao_reference.embed(model, inputs)
        embeddings = {c: e.float() for c, e in embeddings.items()}
        value, _ = loss(embeddings, {m: t.present for m, t in inputs.items()})
        value.backward()
        results.append((embeddings, {n: p.grad for n, p in model.named_parameters()}))
    return results


@pytest.mark.parametrize(("precision", "allowed"), [(None, 1e-5), (torch.bfloat16, 0.05)])
def test_fast_and_plain_agree(precision, allowed):
    (fast, gradients), (slow, plain_gradients) = tiny_step(precision)
    for combination, embedding in slow.items():
        assert (fast[combination] - embedding).abs().max() < allowed
    for name, gradient in plain_gradients.items():
        if gradient is not None and precision is None:
            difference = (gradients[name] - gradient).norm()
            assert difference < 1e-3 * gradient.norm() + 1e-6, name


def test_a_step_never_waits_for_the_device():
    case, expected = golden.read_case("eao_tva")  # with clips that lack a modality
    model = golden.build_model(case, golden.combinations_of(expected, "train")).cuda().train()
    inputs = {m: t.to("cuda") for m, t in golden.read_inputs(case, model.modalities).items()}
    loss = golden.build_loss(case, model)
    optimizer = make_optimizer("adam", model.parameters(), 1e-4, 0.0)
    guard = NonFiniteGuard(Accelerator(), 1.0)

    def step():
        value, _ = loss(
            model(inputs, loss.combinations, skip_incomplete=True),
            {m: t.present for m, t in inputs.items()},
        )
        value.backward()
        guard.check(model.parameters(), optimizer)
        guard.count()
        optimizer.step()
        optimizer.zero_grad()

    step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_memory_of_the_device_that_runs_out_is_survived(tool):
    free, limited = (run_scarce(tool, limit) for limit in (0, 100))
    assert free["chunk"] == 128
    assert limited["chunk"] < 128
    assert limited["losses"] == pytest.approx(free["losses"], rel=1e-4)


def run_scarce(tool, limit):
    code, output, errors = tool("tests/training/scarce.py", limit, "cuda")
    assert code == 0, errors
    return json.loads(output.splitlines()[-1])


@pytest.mark.parametrize("chunk", [None, 0.5])
def test_an_exact_step_never_waits_for_the_device(tmp_path, chunk):
    trainer = cuts.make_trainer(tmp_path, "something", "groups", "float32", chunk, cpu=False)
    batches = list(trainer.rest_of_epoch())
    trainer.step(batches[0])
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.step(batches[1])
    finally:
        torch.cuda.set_sync_debug_mode("default")
