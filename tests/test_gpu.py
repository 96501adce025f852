"""What only a CUDA device can show; run with ``pytest -m gpu``."""

import json

import pytest
import torch
import torch.nn.functional as F

from tests import golden_cases as golden
from tests.tiny import write_config

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
