"""Guards against finite nonsense: weights that explode, clips without a finite gradient."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from fusion.distributed import world_size

GROWTH = 1e4  # times the length of all weights; training to the end takes less than 10
FLOOR = 0.01  # root mean square of weights that counts at least, as of those that begin at zero
KEPT = 100_000  # ids of clips
NAMED = 5  # clips that a message names


class WeightGuard:
    """Ends a run whose weights explode, as of a learning rate that is far too high.

    The length of all weights as one vector is compared with that at the beginning.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters = [p for p in parameters if p.requires_grad]
        self.begin()

    def begin(self) -> None:
        """Compare with the weights of now."""
        count = sum(p.numel() for p in self.parameters)
        self.first = max(float(self.length()), FLOOR * math.sqrt(count))

    @torch.no_grad()
    def length(self) -> Tensor:
        """Return the length of all weights as one vector: a scalar on the device."""
        return (
            torch.nn.utils.get_total_norm(self.parameters) if self.parameters else torch.zeros(())
        )

    def look(self, step: int, saved: int | None) -> None:
        """Compare the weights; ``saved`` is the step of the last checkpoint, None: there is none.

        Raises:
            FloatingPointError: they have exploded, or are not finite.
        """
        length = float(self.length())
        if length <= GROWTH * self.first:  # NaN is not
            return
        kept = f"the checkpoint of step {saved} is kept" if saved else "nothing was saved"
        raise FloatingPointError(
            f"the weights have exploded by step {step}: their norm is {length:.3g}, and was"
            f" {self.first:.3g}; {kept}. Lower trainer.learning_rate (fusion find-lr recommends"
            " one) or set trainer.max_grad_norm, and begin another run by output=DIR"
        )


class SkippedClips:
    """Remembers the clips of recent steps, to name those whose gradient was not finite."""

    def __init__(self) -> None:
        self._steps: deque[tuple[int, Sequence[str], Tensor]] = deque()
        self._count = 0

    def note(self, step: int, ids: Sequence[str], bad: Tensor) -> None:
        """Remember a step; ``bad`` is a scalar on the device, whether it was left out."""
        self._steps.append((step, ids, bad))
        self._count += len(ids)
        while self._count > KEPT and len(self._steps) > 1:
            self._count -= len(self._steps.popleft()[1])

    def take(self) -> dict[int, list[str]]:
        """Return the clips of each step that was left out since the last call, of all ranks."""
        steps, self._count = [*self._steps], 0
        self._steps.clear()
        if not steps:
            return {}
        flags = torch.stack([bad for *_, bad in steps]).tolist()  # one wait for the device
        own = {step: [*ids] for (step, ids, _), bad in zip(steps, flags, strict=True) if bad}
        if not own or world_size() == 1:
            return own
        ranks = gather_object([own])  # all ranks left out the same steps
        return {step: [name for rank in ranks for name in rank[step]] for step in own}


def name_clips(skipped: dict[int, list[str]]) -> str:
    """Name some clips of steps that were left out, to end a line; "": there are none."""
    if not skipped:
        return ""
    parts = []
    for step, ids in list(skipped.items())[:2]:
        names = ", ".join(name if name.isprintable() else ascii(name) for name in ids[:NAMED])
        more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
        parts.append(f"step {step}: {names}{more}")
    return f"; clips of {'; '.join(parts)}; metrics.jsonl has all"
