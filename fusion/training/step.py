"""One exact step: the batch that was asked for, in the memory that there is.

If any rank runs out of memory, all ranks discard the step at their next collective, that rank
halves its chunk, and the step is retried. Parameters, running statistics and the state of the loss
change only after all ranks have agreed that the gradient is complete.
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
    ) -> None:
        self.accelerator, self.model, self.embed, self.loss = accelerator, model, embed, loss
        self.optimizer, self.guard, self.chunk, self.report = optimizer, guard, chunk, report
        self.agreement = distributed.Agreement()
        self.parameters = [p for p in model.parameters() if p.requires_grad]

    def __call__(self, batch: Batch) -> Result:
        """Take a step on this rank's share of a batch; return the loss and its terms, detached.

        Raises:
            OutOfMemory: not even the smallest chunk fits on some rank.
        """
        sizes = None
        while True:
            with one_update(self.model) as norms:
                result, failed = self._attempt(batch, norms)
                if result is None:
                    for norm in norms:
                        norm.forget()
            if result is not None:
                break
            sizes = self._recover(failed)
        if sizes:
            self.report(sizes)
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

    def _attempt(self, batch: Batch, norms: list[GroupedBatchNorm]) -> tuple[Result | None, bool]:
        """Do all that can be undone; return the result or None, and whether this rank failed."""
        chunks = batch.chunks(self.chunk.size)
        try:
            with distributed.check_before_collectives(self.agreement.check):
                result = backward(self.accelerator, self.model, self.embed, self.loss, chunks)
                self._average(norms)
                self.guard.check(self.parameters, self.optimizer.optimizer)
                for norm in norms:
                    norm.leave_out(self.guard.bad)
            self.agreement.check()  # from here on the step cannot be undone
        except distributed.OtherRankFailed:
            return None, False
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            # Return before freeing memory: the traceback still holds the tensors of this step.
            return None, True
        return result, False

    def _average(self, norms: list[GroupedBatchNorm]) -> None:
        for parameter in self.parameters:
            if parameter.grad is None:  # here; clips of another rank may have used it
                parameter.grad = torch.zeros_like(parameter)
        sums = [norm.sums for norm in norms if norm.sums is not None]
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        distributed.all_reduce_mean_([*gradients, *sums])

    def _recover(self, failed: bool) -> list[int]:
        """Undo the attempt and halve the chunk; return the chunk size of each rank."""
        if failed:
            self.agreement.vote(False)  # answers the vote that the other ranks wait in
        self._undo()
        goes_on = not failed or self.chunk.halve()
        sizes = self.agreement.gather(self.chunk.size if goes_on else -1)
        if min(sizes) < 0:
            raise OutOfMemory(self._explain(sizes.index(-1)))
        return sizes

    def _undo(self) -> None:
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
