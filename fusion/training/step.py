"""One exact step: the batch that was asked for, in the memory that there is.

The ranks vote twice: when all have embedded their clips, and before the update. If any rank has run
out of memory, all discard the step, that rank halves its chunk, and the step is retried. Until the
vote a failed rank answers the collectives of the others with zeros. Parameters, running statistics
and the state of the loss change only after all ranks have agreed that the gradient is complete.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils.memory import clear_device_cache
from torch import nn

from fusion import distributed
from fusion.interfaces import Embed, Loss, Result
from fusion.models.batchnorm import GroupedBatchNorm, one_update
from fusion.tokens import Batch
from fusion.training.gradcache import backward
from fusion.training.memory import ChunkSize, OutOfMemory, is_out_of_memory, probe
from fusion.training.optim import NonFiniteGuard

WELL, FULL, BROKEN = 0, -1, -2  # votes: going on; out of memory; another error


class ExactStep:
    """Forward pass, loss, backward pass and update of one batch.

    ``embed`` must give the same outputs each time. ``optimizer`` is a fused one,
    prepared by the accelerator. ``report`` is called on every rank with the chunk size of each
    rank, when one has changed.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        embed: Embed,
        loss: Loss,
        optimizer: Any,
        guard: NonFiniteGuard,
        chunk: ChunkSize,
        report: Callable[[list[int]], None],
        buckets: distributed.GradientBuckets | None = None,
        timeout_minutes: float = distributed.TIMEOUT_MINUTES,
    ) -> None:
        self.accelerator, self.model, self.embed, self.loss = accelerator, model, embed, loss
        self.optimizer, self.guard, self.chunk, self.report = optimizer, guard, chunk, report
        self.agreement = distributed.Agreement(timeout_minutes)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.buckets = buckets or distributed.GradientBuckets(self.parameters)
        self._in_region = False
        self._error: Exception | None = None  # of this rank, other than a lack of memory

    def __call__(self, batch: Batch) -> Result:
        """Take a step on this rank's share of a batch; return the loss and its terms, detached.

        Raises:
            OutOfMemory: not even the smallest chunk fits on some rank.
        """
        recovered = False
        while True:
            with one_update(self.model) as norms, self.agreement.attempt():
                result, votes = self._attempt(batch, norms)
                if result is None:
                    for norm in norms:
                        norm.forget()
            if result is not None:
                break
            self._recover(votes)
            recovered = True
        if recovered or any(vote % 2 for vote in votes):
            self.report([vote // 2 for vote in votes])
        self.guard.count()
        self.loss.commit()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return result

    def probe(self, batch: Batch) -> None:
        """Choose a chunk size for batches like this one; every rank calls this with its share."""
        failed = False
        try:
            probe(self.chunk, self.model, batch, self.embed)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            failed = True
        if failed:
            self._undo()
            self.chunk.limit(1)  # two very small chunks did not fit: take the smallest
        self.report(self.agreement.gather(self.chunk.size))

    def _attempt(
        self, batch: Batch, norms: list[GroupedBatchNorm]
    ) -> tuple[Result | None, list[int]]:
        """Do all that can be undone; return the result, or None, and how the ranks voted."""
        self._in_region = False
        try:
            result = self._compute(batch, norms)
        except distributed.OtherRankFailed as failure:
            return None, failure.votes
        if result is None:
            self._undo()
            if self._in_region:
                self.agreement.answer(self.accelerator.device)
            return None, self.agreement.gather(BROKEN if self._error else FULL)
        grows = self.chunk.count_step()
        votes = self.agreement.gather(2 * self.chunk.size + grows)  # from here on it is final
        return (result if min(votes) > 0 else None), votes

    def _compute(self, batch: Batch, norms: list[GroupedBatchNorm]) -> Result | None:
        """Compute the gradient; None: this rank failed."""
        try:
            chunks = self.chunk.split(batch)
            if not self.loss.compares_clips:
                self._begin_region()
            result = backward(
                self.accelerator,
                self.model,
                self.embed,
                self.loss,
                chunks,
                self._vote_first,
                self.buckets.last_chunk,
            )
            self._average(norms)
            self.guard.check(self.parameters, self.optimizer.optimizer)
            for norm in norms:
                norm.leave_out(self.guard.bad)
            return result
        except (distributed.OtherRankFailed, distributed.CommunicationError):
            raise
        except Exception as error:
            # Return before freeing memory: the traceback still holds the tensors of this step.
            self._error = None if is_out_of_memory(error) else error
            if self._error and self.accelerator.num_processes == 1:
                raise
            return None

    def _vote_first(self) -> None:
        """Agree that all have embedded their clips; then begin to communicate."""
        votes = self.agreement.gather(WELL)
        if min(votes) < 0:
            raise distributed.OtherRankFailed(votes)
        self._begin_region()

    def _begin_region(self) -> None:
        self.agreement.begin()
        self._in_region = True

    def _average(self, norms: list[GroupedBatchNorm]) -> None:
        self.buckets.finish()
        distributed.all_reduce_mean_([norm.sums for norm in norms if norm.sums is not None])

    def _recover(self, votes: list[int]) -> None:
        """Undo the attempt and halve the chunk where memory was short."""
        if votes[distributed.rank()] >= 0:  # a rank that failed has undone it already
            self._undo()
        if FULL not in votes:  # zeros of a rank that failed may break another: then retry
            raise self._error or distributed.CommunicationError(
                f"process {votes.index(BROKEN)} ended with an error; see its message"
            )
        failed, self._error = votes[distributed.rank()] == FULL, None
        ends = self.agreement.gather(int(failed and not self.chunk.halve()))
        if any(ends):
            raise OutOfMemory(self._explain(ends.index(1)))

    def _undo(self) -> None:
        self.buckets.abandon()
        self.optimizer.zero_grad()
        self.loss.undo()
        clear_device_cache(garbage_collection=True)
        if (scaler := self.accelerator.scaler) is not None:
            scaler.scale(torch.zeros((), device=self.accelerator.device))  # initialises it
            scaler.update(scaler.get_scale())  # clears its note that gradients are unscaled

    def _explain(self, rank: int) -> str:
        where = f" of process {rank}" if self.accelerator.num_processes > 1 else ""
        if self.chunk.cut is None:
            return (
                f"out of memory{where}: {self.chunk.share} clips do not fit at a time and cannot be"
                " cut into chunks, as BatchNorm takes its statistics over all of them; set"
                " batchnorm_group of its encoder (such as 16), or lower trainer.batch_size"
            )
        return (
            f"out of memory{where}: not even {self.chunk.cut} clips (batchnorm_group), the smallest"
            f" chunk, fit beside the model and the embeddings of a share of {self.chunk.share};"
            " lower batchnorm_group, take a smaller model or shorter clips, start more processes on"
            " other devices, or set trainer.mixed_precision=bf16"
        )
