"""BatchNorm over groups of a fixed number of clips, so that its result does not depend on the cut.

Plain BatchNorm takes its statistics over whatever is in memory at a time: the share of a process,
or a chunk of it. Another number of processes, or smaller chunks, make another function of the same
model. Here the statistics are those of ``group`` neighbouring clips, a setting of the model ("ghost
batches", arXiv:1705.08741), so any cut between two groups leaves the result as it is. Running
statistics move once a step, by the average over all of the step's groups.

Without a group the statistics are over what is in memory, as published: there, the share of a GPU.

Shapes: B clips, C channels, F frames, G groups.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GroupedBatchNorm(nn.BatchNorm2d):
    """BatchNorm over groups of clips; weights and buffers are those of ``nn.BatchNorm2d``.

    Args:
        num_channels: C.
        group: clips whose statistics are taken together, a divisor of B; None: all of a call.
        frozen: use the running statistics in training too, and leave them as they are.

    Attributes:
        sums: (2, C) means and variances, summed over the groups that the running statistics have
            not seen; see :func:`one_update`.
        num_groups: how many groups those are.
        waits: whether the running statistics stay as they are until :meth:`update` is called.

    Shape:
        (B, C, 1, F) -> (B, C, 1, F)
    """

    def __init__(self, num_channels: int, group: int | None = None, frozen: bool = False) -> None:
        super().__init__(num_channels)
        self.group, self.frozen = group, frozen
        self.sums: Tensor | None = None
        self.num_groups = 0
        self.waits = False

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x``.

        Raises:
            ValueError: B is no multiple of the group.
        """
        if not self.training or self.frozen:
            return self._normalise(x, self.running_mean, self.running_var, training=False)
        parts = x.split(self.group or len(x))
        if self.group is not None and len(x) % self.group:
            raise ValueError(
                f"{len(x)} clips cannot be cut into groups of {self.group}"
                " (batchnorm_group); the clips of a process and of a chunk must be a multiple"
            )
        outputs = []
        for part in parts:
            dtype = torch.promote_types(x.dtype, torch.float32)
            statistics = torch.zeros(2, self.num_features, device=x.device, dtype=dtype)
            # With momentum 1 the "running" statistics become those of the group.
            mean, var = statistics
            outputs.append(self._normalise(part, mean, var, training=True))
            self.sums = statistics if self.sums is None else self.sums + statistics
        self.num_groups += len(parts)
        if not self.waits:
            self.update()
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def _normalise(
        self, x: Tensor, mean: Tensor | None, var: Tensor | None, training: bool
    ) -> Tensor:
        return F.batch_norm(x, mean, var, self.weight, self.bias, training, 1.0, self.eps)

    @torch.no_grad()
    def update(self) -> None:
        """Move the running statistics by the average over the groups since the last time."""
        if self.sums is None:
            return
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        mean, var = self.sums / self.num_groups
        self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
        self.running_var.lerp_(var.to(self.running_var), self.momentum)
        self.num_batches_tracked += 1
        self.forget()

    def forget(self) -> None:
        """Drop what the running statistics have not seen."""
        self.sums, self.num_groups = None, 0


@contextlib.contextmanager
def one_update(model: nn.Module) -> Iterator[None]:
    """Make all calls of a model inside count as one step for its running statistics.

    They move at the end; if an error ends the block, they stay as they were.
    """
    with no_update(model) as norms:
        yield
        for norm in norms:
            norm.update()


@contextlib.contextmanager
def no_update(model: nn.Module) -> Iterator[list[GroupedBatchNorm]]:
    """Leave the running statistics of a model as they are; for clips that it sees a second time."""
    norms = [module for module in model.modules() if isinstance(module, GroupedBatchNorm)]
    for norm in norms:
        norm.waits = True
    try:
        yield norms
    finally:
        for norm in norms:
            norm.waits = False
            norm.forget()
