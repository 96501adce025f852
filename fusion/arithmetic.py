"""Which arithmetic products of float32 numbers use: a decision, not what the environment says.

On NVIDIA GPUs TF32 rounds the factors of a product to 10 bits, and matrix products are several
times as fast. PyTorch leaves it off for matrices and on for convolutions, and
``TORCH_ALLOW_TF32_CUBLAS_OVERRIDE`` changes that unseen. Here it is on in networks, and off where
sums over a whole batch need all digits: in losses.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import torch


@dataclasses.dataclass(frozen=True)
class Arithmetic:
    """How the networks of this process compute; losses compute in float32.

    Attributes:
        mixed_precision: of autocast: ``no``, ``fp16`` or ``bf16``.
        tf32: products of float32 are computed in TF32.
        autotuning: cuDNN tries its algorithms for each new shape and takes the fastest.
    """

    mixed_precision: str
    tf32: bool
    autotuning: bool

    def __str__(self) -> str:
        named = {"no": "float32", "fp16": "fp16 (autocast)", "bf16": "bf16 (autocast)"}
        rest = f"TF32 {_on(self.tf32)}, cuDNN autotuning {_on(self.autotuning)}"
        return f"{named[self.mixed_precision]}, {rest}; the loss in float32"

    def as_json(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {**dataclasses.asdict(self), "loss": "float32"}


def choose_arithmetic(device: str, mixed_precision: str) -> Arithmetic:
    """Set what networks of this process use on a type of device, whatever was set before.

    ``NVIDIA_TF32_OVERRIDE=0`` is of the driver; nothing here can set it aside, so it is reported.
    """
    fast = device == "cuda"
    set_tf32(fast)
    torch.backends.cudnn.benchmark = fast
    forbidden = os.environ.get("NVIDIA_TF32_OVERRIDE") == "0"
    return Arithmetic(mixed_precision, fast and not forbidden, fast)


def set_tf32(allowed: bool) -> None:
    """Allow TF32 for the products of float32 matrices and convolutions, or forbid it."""
    # The older names: they also set the newer ones, and PyTorch refuses to read a mixture.
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed


def tf32_is_allowed() -> bool:
    """Return whether float32 matrices are multiplied in TF32."""
    return torch.backends.cuda.matmul.fp32_precision == "tf32"


@contextlib.contextmanager
def full_precision(device_type: str) -> Iterator[None]:
    """Within the block, products of float32 are float32: no autocast, no TF32, no bf16."""
    cpu, cudnn = vars(torch.backends)["mkldnn"], vars(torch.backends)["cudnn"]
    before = (
        tf32_is_allowed(),
        cpu.matmul.fp32_precision == "bf16",
        cudnn.conv.fp32_precision == "tf32",
    )
    autocast: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
    if torch.amp.is_autocast_available(device_type):
        autocast = torch.autocast(device_type, enabled=False)
    set_tf32(False)
    try:
        with autocast:
            yield
    finally:
        products, rounded, convolutions = before
        torch.set_float32_matmul_precision(
            "medium" if rounded else "high" if products else "highest"
        )
        torch.backends.cudnn.allow_tf32 = convolutions


def _on(flag: bool) -> str:
    return "on" if flag else "off"
