"""Mixed precision: what a device lacks is replaced, with one line and without warnings."""

import warnings

import pytest
import torch
from accelerate.state import AcceleratorState

from fusion.training import Settings, fit, launch

LINES = {"no": "", "bf16": "", "fp16": "fp16 needs a CUDA device and there is none: going on in"}


class Line(torch.nn.Module):
    """A linear map."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.line = torch.nn.Linear(4, 2)

    def forward(self, x):
        """Map (B, 4) rows to (B, 2)."""
        return {"y": self.line(x)}


@pytest.fixture(autouse=True)
def another_precision_each_time():
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("precision", LINES)
@pytest.mark.filterwarnings("error")
def test_no_precision_warns_or_ends_a_training_without_a_gpu(precision, monkeypatch, capsys):
    """Others' notebooks said: torch.cuda.amp.GradScaler is enabled, but CUDA is not available."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    model, kinds = Line(), []
    model.line.register_forward_hook(lambda layer, given, y: kinds.append(y.dtype))
    settings = Settings(epochs=2, batch_size=4, learning_rate=0.01, mixed_precision=precision)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = fit(
            model,
            lambda outputs: outputs["y"].float().square().mean(),
            list(torch.ones(8, 4)),
            settings,
            evaluate=lambda model: {"score": -model.line.weight.square().sum().item()},
        )
    lines = [line for line in capsys.readouterr().err.splitlines() if "fp16" in line]
    assert [line[: len(LINES[precision])] for line in lines] == [LINES[precision]] * len(lines)
    assert len(lines) == bool(LINES[precision])
    assert {*kinds} == {torch.bfloat16 if precision == "bf16" else torch.float32}
    found = [row["loss"] for row in rows if row["event"] == "train"]
    assert found[-1] < found[0]


@pytest.mark.parametrize(
    ("wanted", "device", "has_bf16", "nearest"),
    [
        ("fp16", "cuda", False, "fp16"),
        ("bf16", "cuda", True, "bf16"),
        ("bf16", "cuda", False, "fp16"),
        ("fp16", "mps", True, "no"),
        ("bf16", "mps", True, "bf16"),
        ("bf16", "mps", False, "no"),
        ("bf16", "cpu", False, "bf16"),
        ("no", "cuda", False, "no"),
    ],
)
def test_each_device_gets_the_nearest_that_it_has(monkeypatch, wanted, device, has_bf16, nearest):
    emulated = {True: True, False: has_bf16}  # by whether an emulation counts
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: emulated[including_emulation],
    )
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda *_: has_bf16)
    found, line = launch._nearest_precision(wanted, device)
    assert (found, bool(line)) == (nearest, nearest != wanted)
