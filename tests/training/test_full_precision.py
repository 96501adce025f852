"""TF32 is on in networks and off in the loss, forwards and backwards, whatever was set before."""

import pytest
import torch
from accelerate.state import AcceleratorState

from fusion import arithmetic
from fusion.arithmetic import choose_arithmetic, full_precision, set_tf32, tf32_is_allowed
from fusion.interfaces import Loss
from fusion.training import Settings, fit, launch
from fusion.training.full_precision import InFullPrecision

LEVELS = ("highest", "high", "medium")


@pytest.fixture(autouse=True)
def as_before():
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    tuning = torch.backends.cudnn.benchmark
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = before[1], tuning
    AcceleratorState._reset_state(reset_partial_state=True)


class Seen(torch.autograd.Function):
    """Passes on what it gets, and notes the arithmetic of both passes in a list."""

    @staticmethod
    def forward(ctx, notes, x):
        ctx.notes = notes
        notes.append(now())
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        ctx.notes.append(now())
        return None, gradient


def now():
    levels = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    return (*levels, torch.is_autocast_enabled("cpu"))


class Products(Loss):
    """A sum of products of two of three outputs."""

    def __init__(self, notes):
        self.notes, self.undone = notes, 0

    def __call__(self, outputs, present, /, *targets):
        """Multiply."""
        x, y = (Seen.apply(self.notes, outputs[name]) for name in "xy")
        return Seen.apply(self.notes, (x @ y.T).square().sum()), {}

    def undo(self):
        """Count."""
        self.undone += 1


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("convolutions", [True, False])
def test_all_of_a_loss_is_float32_and_nothing_of_the_model(level, convolutions):
    torch.set_float32_matmul_precision(level)
    torch.backends.cudnn.allow_tf32 = convolutions
    inside, outside = [], []
    weights = {name: torch.randn(3, 4, requires_grad=True) for name in "xyz"}
    with torch.autocast("cpu", torch.bfloat16):
        outputs = {name: Seen.apply(outside, weights[name]) for name in "xy"}
        outputs["z"] = weights["z"]
        value, _ = InFullPrecision(Products(inside))(outputs, {})
    value.backward()
    assert inside == [("highest", False, False)] * 6
    assert outside[:2] == [(level, convolutions, True)] * 2
    assert [note[0] != "highest" for note in outside[2:]] == [level != "highest"] * 2
    assert weights["z"].grad is None  # which no loss reads


def test_value_and_gradient_are_those_of_the_loss():
    results = []
    for wrap in (lambda loss: loss, InFullPrecision):
        torch.manual_seed(0)
        outputs = {name: torch.randn(5, 4, requires_grad=True) for name in "xy"}
        value, _ = wrap(Products([]))(outputs, {})
        value.backward()
        results.append((value, outputs["x"].grad, outputs["y"].grad))
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_an_error_within_the_loss_does_not_slow_the_next_attempt():
    set_tf32(True)
    loss = InFullPrecision(Products([]))
    _value, _ = loss({name: torch.randn(2, 2, requires_grad=True) for name in "xy"}, {})
    set_tf32(False)  # as in the middle of the backward pass
    loss.undo()
    assert tf32_is_allowed() and loss.loss.undone == 1


@pytest.mark.parametrize("level", LEVELS)
def test_a_block_restores_what_was_set(level):
    torch.set_float32_matmul_precision(level)
    with pytest.raises(KeyError), full_precision("cpu"):
        assert now() == ("highest", False, False)
        raise KeyError
    assert torch.get_float32_matmul_precision() == level


@pytest.mark.parametrize("forced", LEVELS)
def test_a_device_gets_its_arithmetic_whatever_the_environment_says(forced, monkeypatch):
    torch.set_float32_matmul_precision(forced)
    assert choose_arithmetic("cpu", "no") == arithmetic.Arithmetic("no", False, False)
    assert now()[:2] == ("highest", False)
    chosen = choose_arithmetic("cuda", "bf16")
    assert str(chosen) == ("bf16 (autocast), TF32 on, cuDNN autotuning on; the loss in float32")
    assert tf32_is_allowed() and torch.backends.cudnn.benchmark
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert choose_arithmetic("cuda", "no").as_json() == {
        **{"mixed_precision": "no", "tf32": False, "autotuning": True, "loss": "float32"}
    }


@pytest.mark.parametrize(
    ("wanted", "launched", "device", "has_bf16", "expected", "said"),
    [
        ("auto", "no", "cuda", True, "bf16", False),
        ("auto", "fp16", "cuda", True, "bf16", True),
        ("auto", None, "cuda", False, "no", False),
        ("auto", "bf16", "cpu", True, "no", True),
        ("auto", None, "mps", True, "no", False),
        (None, "bf16", "cpu", True, "bf16", False),
        (None, None, "cuda", True, "no", False),
        (False, "bf16", "cpu", True, "no", False),
    ],
)
def test_auto_is_bf16_where_a_gpu_computes_in_it_whatever_was_launched(
    monkeypatch, capsys, wanted, launched, device, has_bf16, expected, said
):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    if launched:
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launched)
    assert launch._precision(wanted, device) == expected
    assert ("of the launcher is ignored" in capsys.readouterr().err) == said


class Line(torch.nn.Linear):
    """A linear map of named outputs."""

    def forward(self, x):
        """Map (B, 2) rows."""
        return {"y": super().forward(x)}


def train(folder, precision, epochs, resume=False):
    settings = Settings(epochs=epochs, batch_size=2, learning_rate=0.1, mixed_precision=precision)
    rows = list(torch.ones(4, 2))
    loss = lambda outputs: outputs["y"].square().mean()  # noqa: E731
    return fit(Line(2, 2), loss, rows, settings, folder=folder, resume=resume)


def test_a_run_does_not_go_on_in_another_precision_unseen(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    train(tmp_path, None, 1)
    assert "arithmetic bf16 (autocast), TF32 off, cuDNN auto" in capsys.readouterr().err
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    with pytest.raises(
        ValueError, match="written with mixed_precision=bf16 and cannot go on with no"
    ):
        train(tmp_path, None, 2, resume=True)
    AcceleratorState._reset_state(reset_partial_state=True)
    assert train(tmp_path, "bf16", 2, resume=True)[-1]["epoch"] == 2


def test_a_launcher_that_compiles_is_refused(monkeypatch):
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR")
    with pytest.raises(launch.LaunchError, match="dynamo_backend=inductor, which .* trainer.compi"):
        launch.make_accelerator("no", None)
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "NO")
    launch.make_accelerator("no", None)
