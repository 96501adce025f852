"""Steps whose gradient is not finite are left out, without asking the device in every step."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from accelerate import Accelerator
from torch import Tensor, nn

MOST = 10  # steps in a row without a finite gradient
MOST_SCALED = 40  # the same with fp16, whose scale begins too high on purpose


class NonFiniteGuard:
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
        self._bad_norm = torch.zeros((), device=device)  # of the newest that was not finite
        self._bad = torch.zeros((), dtype=torch.bool, device=device)

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
        self._bad = ~torch.isfinite(self._norm)
        if self.accelerator.scaler is None:
            optimizer.found_inf = self._bad.to(torch.float32)  # type: ignore[attr-defined]

    @property
    def bad(self) -> Tensor:
        """Whether the gradient that was checked last is not finite; a scalar on the device."""
        return self._bad

    def count(self) -> None:
        """Count the step whose gradients were checked, once it is sure to be taken."""
        self._bad_norm = torch.where(self._bad, self._norm, self._bad_norm)
        self._skipped += self._bad
        self._in_a_row = (self._in_a_row + 1) * self._bad

    def look(self, step: int) -> str | None:
        """Ask the device.

        Args:
            step: the newest.

        Returns:
            What to tell the user about steps that were left out since the last look.

        Raises:
            FloatingPointError: too many in a row were left out.
        """
        skipped, in_a_row = int(self._skipped), int(self._in_a_row)
        self._skipped = torch.zeros_like(self._skipped)
        if in_a_row >= self.most:
            raise FloatingPointError(
                f"the gradient was not finite in {in_a_row} steps in a row, up to step {step};"
                f" lower trainer.learning_rate or set trainer.max_grad_norm (now {self.max_norm})"
            )
        return (
            f"{skipped} step{'s' if skipped > 1 else ''} up to step {step} left out, as the"
            f" gradient was not finite ({float(self._bad_norm)}; {in_a_row} in a row)"
            if skipped
            else None
        )
