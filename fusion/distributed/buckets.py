"""The mean of gradients over the ranks, while the last chunk is still being computed.

Buckets of parameters are made in reverse order, which is roughly that of the backward pass. A
bucket is sent as soon as all its gradients are complete, but never before the one ahead of it: all
ranks send in the same order, whatever modalities their clips lack.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from fusion.distributed import exchange
from fusion.distributed.collectives import make_buckets
from fusion.distributed.place import world_size


class GradientBuckets:
    """Averages the gradients of some parameters over the ranks.

    Args:
        parameters: those that are trained, in the same order on every rank.
        overlap: begin within :meth:`last_chunk`; else all is done in :meth:`finish`.
        dtype: what is sent, such as ``torch.bfloat16`` for half the bytes; None: the gradients as
            they are.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        overlap: bool = True,
        dtype: torch.dtype | None = None,
    ) -> None:
        parameters = list(parameters)
        self.buckets = list(make_buckets(parameters[::-1]))
        self.overlap, self.dtype = overlap and world_size() > 1, dtype
        self._bucket_of = {p: n for n, bucket in enumerate(self.buckets) for p in bucket}
        self._waits_for: list[set[Tensor]] | None = None  # in each bucket; None: nothing is sent
        self._sent: deque[tuple[exchange.Pending, Tensor]] = deque()
        self._next = self._arrived = 0  # buckets that were sent, and that are back
        if self.overlap:
            for parameter in parameters:
                parameter.register_post_accumulate_grad_hook(self._complete)

    @contextlib.contextmanager
    def last_chunk(self) -> Iterator[None]:
        """Send gradients once they are complete; the block is one backward pass."""
        if self.overlap:
            self._waits_for = [set(bucket) for bucket in self.buckets]
        try:
            yield
        finally:
            self._waits_for = None

    def finish(self) -> None:
        """Send the rest, and put the means in the place of the gradients.

        A parameter without a gradient counts as 0 here; clips of another rank may have used it.
        """
        if world_size() == 1:
            for bucket in self.buckets:
                _gradients(bucket)
            return
        while self._arrived < len(self.buckets):
            while self._next < len(self.buckets) and (self.overlap or not self._sent):
                self._send()
            pending, flat = self._sent.popleft()
            pending.wait()
            _put_mean(self.buckets[self._arrived], flat)
            self._arrived += 1
        self._next = self._arrived = 0

    def abandon(self) -> None:
        """Forget what was sent, once it has arrived; other ranks may still read it."""
        while self._sent:
            self._sent.popleft()[0].wait()
        self._next = self._arrived = 0

    def _complete(self, parameter: Tensor) -> None:
        """Note that a gradient is complete, and send the buckets that wait for no other."""
        if self._waits_for is None:
            return
        number = self._bucket_of[parameter]
        if number < self._next:
            raise RuntimeError(
                "a parameter got a gradient twice in one backward pass, as with reentrant"
                " checkpointing; use_reentrant=False avoids it, or set trainer.overlap=false"
            )
        self._waits_for[number].discard(parameter)
        while self._next < len(self.buckets) and not self._waits_for[self._next]:
            self._send()

    @torch.no_grad()
    def _send(self) -> None:
        bucket = self.buckets[self._next]
        gradients = _gradients(bucket)
        only = gradients[0]
        dtype = self.dtype or only.dtype
        if len(bucket) == 1 and only.is_contiguous() and dtype == only.dtype:
            flat = only.view(-1)
        else:
            flat = only.new_empty(sum(g.numel() for g in gradients), dtype=dtype)
            first = 0
            for parameter, gradient in zip(bucket, gradients, strict=True):
                flat[first : first + gradient.numel()] = gradient.reshape(-1)
                first += gradient.numel()
                parameter.grad = None  # its mean will be a part of the bucket
        del gradients, only
        self._sent.append((exchange.begin(exchange.SUM, flat, flat), flat))
        self._next += 1


def _gradients(bucket: Sequence[Tensor]) -> list[Tensor]:
    for parameter in bucket:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    return [p.grad for p in bucket if p.grad is not None]


@torch.no_grad()
def _put_mean(bucket: Sequence[Tensor], flat: Tensor) -> None:
    """Let parts of the bucket be the gradients; where a parameter is not contiguous, a copy."""
    flat = flat.to(bucket[0].dtype).div_(world_size())
    for parameter, part in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
        if parameter.is_contiguous():
            parameter.grad = part.view_as(parameter)
        else:
            parameter.grad = torch.empty_like(parameter).copy_(part.view(parameter.shape))
