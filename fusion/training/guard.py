"""Steps whose gradient is not finite are left out, without asking the device in every step."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from accelerate import Accelerator
from torch import nn

MOST = 10  # steps in a row without a finite gradient
MOST_SCALED = 40  # the same with fp16, whose scale begins too high on purpose


class GradientGuard:
    """Clips the gradient of each step and leaves out steps where it is not finite.

    Args:
        accelerator: unscales gradients; its fp16 scaler leaves out steps by itself.
        max_norm: longer gradients are clipped; None for never.
    """

    def __init__(self, accelerator: Accelerator, max_norm: float | None) -> None:
        self.accelerator, self.max_norm = accelerator, max_norm
        self.most = MOST if accelerator.scaler is None else MOST_SCALED
        device = accelerator.device
        self._skipped = torch.zeros((), dtype=torch.int64, device=device)  # since the last look
        self._in_a_row = torch.zeros((), dtype=torch.int64, device=device)
        self._norm = torch.zeros((), device=device)

    def check(self, parameters: Iterable[nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradients and tell the optimizer whether to leave the step out.

        Args:
            parameters: those with gradients.
            optimizer: a fused one, which takes the answer without handing it to the CPU.
        """
        parameters = list(parameters)
        if self.max_norm is None:
            self.accelerator.unscale_gradients()
            gradients = [p.grad for p in parameters if p.grad is not None]
            self._norm = torch.nn.utils.get_total_norm(gradients)
        else:
            self._norm = self.accelerator.clip_grad_norm_(parameters, self.max_norm)
        bad = ~torch.isfinite(self._norm)
        self._skipped += bad
        self._in_a_row = (self._in_a_row + 1) * bad
        if self.accelerator.scaler is None:
            optimizer.found_inf = bad.to(torch.float32)  # type: ignore[attr-defined]

    def look(self) -> tuple[int, int, float]:
        """Ask the device.

        Returns:
            How many steps were left out since the last look, how many in a row until now, and the
            length of the newest gradient.
        """
        skipped, in_a_row = int(self._skipped), int(self._in_a_row)
        self._skipped = torch.zeros_like(self._skipped)
        return skipped, in_a_row, float(self._norm)
