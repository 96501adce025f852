"""Skip steps whose gradient is not finite, without a device synchronisation in every step."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from accelerate import Accelerator
from torch import Tensor, nn

MOST = 10  # steps in a row without a finite gradient
MOST_SCALED = 40  # the same with fp16, whose loss scale begins too high on purpose


class NonFiniteGuard:
    """Clips the gradient of each step and skips steps where it is not finite.

    Args:
        accelerator: unscales gradients; its fp16 scaler skips steps by itself.
        max_norm: gradients with a larger norm are clipped; None: never.
    """

    def __init__(self, accelerator: Accelerator, max_norm: float | None) -> None:
        self.accelerator, self.max_norm = accelerator, max_norm
        self.most = MOST if accelerator.scaler is None else MOST_SCALED
        device = accelerator.device
        self._skipped = torch.zeros((), dtype=torch.int64, device=device)  # since the last look
        self._in_a_row = torch.zeros((), dtype=torch.int64, device=device)
        self._norm = torch.zeros((), device=device)
        self._bad_norm = torch.zeros((), device=device)  # the last that was not finite
        self._bad = torch.zeros((), dtype=torch.bool, device=device)

    def check(self, parameters: Iterable[nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradients and tell the optimizer whether to skip the step.

        Args:
            parameters: those with gradients.
            optimizer: a fused one, which reads the answer on the device.
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
        """Whether the last checked gradient is not finite; a scalar on the device."""
        return self._bad

    def count(self) -> None:
        """Count the step whose gradients were checked; call it once all ranks have agreed."""
        self._bad_norm = torch.where(self._bad, self._norm, self._bad_norm)
        self._skipped += self._bad
        self._in_a_row = (self._in_a_row + 1) * self._bad

    def look(self, step: int) -> str | None:
        """Read the counters back from the device.

        Args:
            step: number of the last step.

        Returns:
            A message about steps that were skipped since the last call; None if there are none.

        Raises:
            FloatingPointError: too many steps in a row were skipped.
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
