"""BatchNorm over groups of a fixed number of clips; its result does not depend on the chunks.

Plain BatchNorm takes its statistics over the clips in memory, so the number of processes and the
chunk size change its result. Here they are over ``group`` neighbouring clips ("ghost batches",
arXiv:1705.08741), and a batch can be cut between any two groups. Running statistics move once a
step, by the average over all groups. Without a group it is plain BatchNorm, as published.

Shapes: B clips, C channels, G groups; N rows, one for each clip unless :func:`rows_of_clips` says
otherwise; H and W (for sound 1 and F frames, for pictures pixels).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_ROWS: ContextVar[Sequence[int] | None] = ContextVar("rows of clips", default=None)


@contextlib.contextmanager
def rows_of_clips(rows: Sequence[int]) -> Iterator[None]:
    """Within the block, clip i is ``rows[i]`` neighbouring rows of a batch, such as its frames."""
    token = _ROWS.set(rows)
    try:
        yield
    finally:
        _ROWS.reset(token)


class GroupedBatchNorm(nn.BatchNorm2d):
    """BatchNorm of (N, C, H, W) over groups of clips; the state is that of ``nn.BatchNorm2d``.

    Args:
        num_channels: C.
        group: clips whose statistics are taken together, a divisor of B; None: all of a call.
        frozen: use the running statistics in training too, without updating them.
    """

    def __init__(self, num_channels: int, group: int | None = None, frozen: bool = False) -> None:
        super().__init__(num_channels)
        self.group, self.frozen = group, frozen
        self.sums: Tensor | None = None  # (2, C) means and variances, summed over num_groups
        self.num_groups = 0  # groups since the last update of the running statistics
        self.waits = self.ignores = False  # update only if told to, or never
        self.found: Tensor | None = None  # sums of a compiled call, see count_found

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x``; raise ValueError if B is no multiple of the group."""
        if not self.training or self.frozen:
            mean, var = self.running_mean, self.running_var
            if torch.compiler.is_compiling():
                return self._scale(x, mean, var)  # type: ignore[arg-type]
            return F.batch_norm(x, mean, var, self.weight, self.bias, eps=self.eps)
        if torch.compiler.is_compiling():  # whose code must hold for any number of clips
            y, self.found = self._normalise_by_hand(x)
            return y
        if (rows := _ROWS.get()) is not None:
            y = self._normalise_rows(x, rows)
        elif len(x):
            num_groups = self._num_groups(len(x))
            y, sums = self._normalise(x, num_groups)
            self._count(sums, num_groups)
        else:
            y = x
        if not self.waits:
            self.update()
        return y

    def count_found(self, num_clips: int) -> None:
        """Count the groups of a compiled call, which changes nothing but ``found``."""
        if self.found is not None:
            self._count(self.found, self._num_groups(num_clips))
            self.found = None
            if not self.waits:
                self.update()

    def check(self, num_clips: int) -> None:
        """Raise ValueError if so many clips are no multiple of the group."""
        if self.training and not self.frozen:
            self._num_groups(num_clips)

    def _num_groups(self, num_clips: int) -> int:
        group = self.group or num_clips
        if num_clips % max(group, 1):
            raise ValueError(
                f"{num_clips} clips cannot be cut into groups of {group}"
                " (batchnorm_group); the clips of a process and of a chunk must be a multiple"
            )
        return num_clips // max(group, 1)

    def _normalise_rows(self, x: Tensor, rows: Sequence[int]) -> Tensor:
        """Normalise each group of clips, which have so many rows each."""
        group = max(1, len(rows) // max(1, self._num_groups(len(rows))))
        sizes = [sum(rows[i : i + group]) for i in range(0, len(rows), group)]
        if sizes and min(sizes) == max(sizes) > 0:
            y, sums = self._normalise(x, len(sizes))
            self._count(sums, len(sizes))
            return y
        # Clips of different numbers of frames.
        found = [self._normalise(part, 1) for part in x.split(sizes) if len(part)] if sizes else []
        for _, sums in found:
            self._count(sums, 1)
        if empty := sizes.count(0):  # counts, as all ranks have equally many groups
            assert self.running_mean is not None and self.running_var is not None
            here = torch.stack([self.running_mean, self.running_var])
            self._count(empty * here.to(torch.promote_types(x.dtype, torch.float32)), empty)
        return torch.cat([y for y, _ in found]) if found else x

    def _normalise(self, x: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
        """Normalise groups of equally many rows by their own statistics.

        Returns:
            The result, and (2, C) the sums over the groups of their means and variances.
        """
        # One call for all groups: each channel of each group is a channel of its own.
        size, channels = len(x) // num_groups, x.shape[1]
        x = x.unflatten(0, (num_groups, size)).transpose(0, 1).flatten(1, 2)  # (b, G C, H, W)
        dtype = torch.promote_types(x.dtype, torch.float32)
        statistics = torch.zeros(2, x.shape[1], device=x.device, dtype=dtype)
        # With momentum 1 the "running" statistics become those of the group.
        mean, var = statistics
        weight, bias = (p.repeat(num_groups) for p in (self.weight, self.bias))
        y = F.batch_norm(x, mean, var, weight, bias, training=True, momentum=1.0, eps=self.eps)
        y = y.unflatten(1, (num_groups, channels)).transpose(0, 1).flatten(0, 1)
        return y, statistics.unflatten(1, (num_groups, channels)).sum(dim=1)

    def _normalise_by_hand(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Do the same as :meth:`_normalise` in operations that fit any number of groups."""
        groups = x[None]
        if self.group is not None:
            groups = x.unflatten(0, (len(x) // self.group, self.group))  # (G, b, C, H, W)
        values = groups.to(torch.promote_types(x.dtype, torch.float32))
        var, mean = torch.var_mean(values, dim=(1, 3, 4), correction=0, keepdim=True)
        y = self._scale(values, mean, var)
        count = groups.shape[1] * groups.shape[3] * groups.shape[4]
        statistics = torch.stack([mean.flatten(1), var.flatten(1) * (count / (count - 1))])
        return y.to(x.dtype).flatten(0, 1), statistics.sum(dim=1)

    def _scale(self, x: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        """Normalise (…, C, H, W) by statistics that broadcast to it, or of (C,) channels."""
        mean, var = (s[:, None, None] if s.ndim == 1 else s for s in (mean, var))
        y = (x - mean) * (var + self.eps).rsqrt()
        return (y * self.weight[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    def _count(self, sums: Tensor, num_groups: int) -> None:
        if not self.ignores:
            self._add(sums, num_groups)

    def _add(self, sums: Tensor, num_groups: int) -> None:
        self.sums = sums if self.sums is None else self.sums + sums
        self.num_groups += num_groups

    @torch.no_grad()
    def update(self) -> None:
        """Move the running statistics by the average over the groups since the last update."""
        if self.sums is None:
            return
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        mean, var = self.sums / self.num_groups
        self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
        self.running_var.lerp_(var.to(self.running_var), self.momentum)
        self.num_batches_tracked += 1
        self.forget()

    def leave_out(self, bad: Tensor) -> None:
        """Cancel the next update if ``bad``, a scalar on the device."""
        if self.sums is not None:
            assert self.running_mean is not None and self.running_var is not None
            here = torch.stack([self.running_mean, self.running_var]).to(self.sums)
            self.sums = torch.where(bad, here * self.num_groups, self.sums)

    def forget(self) -> None:
        """Drop the groups since the last update."""
        self.sums, self.num_groups = None, 0


def check_batchnorm(group: object, frozen: object) -> None:
    """Check the settings ``batchnorm_group`` and ``batchnorm_frozen`` of a network; ValueError."""
    if group is not None and (type(group) is not int or group < 1):
        raise ValueError(f"batchnorm_group must be a number from 1 on; got {group!r}")
    if not isinstance(frozen, bool):
        raise ValueError(f"batchnorm_frozen must be true or false; got {frozen!r}")


@contextlib.contextmanager
def one_update(model: nn.Module) -> Iterator[list[GroupedBatchNorm]]:
    """Update the running statistics once, at the end of the block, unless an error ends it.

    Within the block the caller may average ``sums`` of the layers over ranks, which have equally
    many groups.
    """
    with _set(model, "waits") as norms:
        try:
            yield norms
            for norm in norms:
                norm.update()
        finally:
            for norm in norms:
                norm.forget()


def no_update(model: nn.Module) -> contextlib.AbstractContextManager[object]:
    """Do not update the running statistics of a model; for clips that it sees a second time."""
    return _set(model, "ignores")


@contextlib.contextmanager
def _set(model: nn.Module, flag: str) -> Iterator[list[GroupedBatchNorm]]:
    norms = [module for module in model.modules() if isinstance(module, GroupedBatchNorm)]
    before = [getattr(norm, flag) for norm in norms]  # blocks may lie in one another
    for norm in norms:
        setattr(norm, flag, True)
    try:
        yield norms
    finally:
        for norm, value in zip(norms, before, strict=True):
            setattr(norm, flag, value)


def batch_granularity(model: nn.Module) -> int | None:
    """Return the number of clips of which every chunk must be a multiple.

    It is the least common multiple of the groups of the model's BatchNorms that are not frozen; 1
    without any; None if one of them has no group, so that any cut would change the result. Plain
    BatchNorm is frozen while it is in evaluation mode.
    """
    cut = 1
    for norm in model.modules():
        if not isinstance(norm, nn.modules.batchnorm._BatchNorm):
            continue
        if not isinstance(norm, GroupedBatchNorm):
            if norm.training or norm.running_mean is None:
                return None
            continue
        if norm.group is None and not norm.frozen:
            return None
        if norm.group and not norm.frozen:
            cut = math.lcm(cut, norm.group)
    return cut
