"""The exact step for any model, loss and data set, without a config.

Shapes: B items, E embedding width.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

from fusion import distributed
from fusion.batches import Collate, NumberedCollate, NumberedItems, as_batch
from fusion.interfaces import Loss, Named, Result
from fusion.models.batchnorm import batch_granularity, one_update
from fusion.tokens import Batch
from fusion.training.gradcache import backward, check_outputs
from fusion.training.launch import make_accelerator
from fusion.training.run_folder import RunFolder
from fusion.training.sampler import mix
from fusion.training.settings import Settings
from fusion.training.trainer import Trainer

LossLike = Loss | Callable[..., Tensor]


def fit(
    model: nn.Module,
    loss: LossLike,
    dataset: Dataset[Any] | Sequence[Any],
    settings: Settings,
    *,
    collate: Collate = default_collate,
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    seed: int = 0,
    accelerator: Accelerator | None = None,
) -> list[dict[str, Any]]:
    """Train a model in place, with batches of any size in the memory that there is.

    The gradient is that of the whole batch, on one process or on several (``torchrun script.py``,
    ``accelerate launch script.py``). If memory runs out, the step is retried in smaller chunks.

    Args:
        model: maps what ``collate`` returns to a dict of named (B, …) tensors, row i of item i.
            Every row must depend on its own item alone: BatchNorm must be in evaluation mode.
        loss: a :class:`fusion.interfaces.Loss`, or a function of the model's outputs that returns
            a scalar. On several processes a function must gather what it compares, as
            :func:`fusion.losses.nce` does, see :mod:`fusion.distributed`.
        dataset: items by number; ``begin_epoch(number)`` and ``set_epoch(seed)`` are called before
            each epoch if it has them.
        settings: how to train.
        collate: makes a batch of items, see :func:`fusion.batches.as_batch`.
        evaluate: returns named results of the model after each epoch, on every process; a larger
            value of the first, or of ``settings.best``, is better.
        folder: where ``metrics.jsonl`` and the checkpoints ``best`` and ``last`` go; None: nowhere.
        resume: continue the run in ``folder`` from its newest checkpoint that is not damaged, if
            there is one.
        seed: of the order of the items and of all other random numbers.
        accelerator: the processes; made here if not given.

    Returns:
        The rows that were logged in this call, as in ``metrics.jsonl``.

    Raises:
        ValueError: an argument cannot be used, or the folder holds a run and ``resume`` is False.
        OutOfMemory: not even the smallest chunk fits.
        FloatingPointError: the gradient was not finite in too many steps, or the weights exploded.
        Stopped: with a folder, SIGTERM, SIGINT or SIGHUP was received; the state is saved.
    """
    if isinstance(loss, nn.Module) and any(p.requires_grad for p in loss.parameters()):
        raise ValueError(
            f"{type(loss).__name__} has parameters, but only those of the model are trained; make"
            " them part of the model, which may return them, one row for each item"
        )
    items = NumberedItems(dataset)
    if accelerator is None:
        accelerator = make_accelerator(
            settings.mixed_precision, None, settings.num_processes, settings.timeout_minutes
        )
    run, goes_on = (None, False) if folder is None else _open(Path(folder), resume, accelerator)
    trainer = Trainer(
        model=model,
        loss=as_loss(loss),
        train_set=items,
        collate=NumberedCollate(collate),
        settings=settings,
        seed=seed,
        accelerator=accelerator,
        folder=run,
        evaluate=evaluate or (lambda model: {}),
    )
    if goes_on:
        trainer.resume()
    trainer.fit()
    return trainer.log.rows


def exact_backward(
    model: nn.Module,
    loss: LossLike,
    batch: Any,
    chunk_size: int,
    *,
    accelerator: Accelerator | None = None,
) -> Result:
    """Call ``backward`` on the loss of a batch, with the activations of one chunk in memory.

    The gradient is that of ``loss(model(batch)).backward()`` (arXiv:2101.06983), and is added to
    ``.grad``. It takes one more forward pass. Dropout is drawn for each chunk. If
    ``torch.distributed`` runs, each process passes its own items, as many as every other, and the
    gradients are averaged here: the model must not be wrapped in ``DistributedDataParallel``.

    Args:
        model: see :func:`fit`; its chunks are moved to its device.
        loss: see :func:`fit`; one with parameters gets their gradient too.
        batch: see :func:`fusion.batches.as_batch`.
        chunk_size: items in memory at a time.
        accelerator: scales the loss in fp16; plain PyTorch if not given.

    Returns:
        The loss and its terms by name, detached.

    Raises:
        ValueError: the model takes BatchNorm statistics over more than a chunk, or an argument
            cannot be used.
    """
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1; got {chunk_size}")
    chunks, cut = as_batch(batch).chunks(chunk_size), batch_granularity(model)
    if len(chunks) > 1 and (cut is None or chunk_size % cut):
        raise ValueError(
            f"chunks of {chunk_size} items would change the result, as BatchNorm takes its"
            " statistics over all items; call eval() on it, use LayerNorm, or set"
            f" {'batchnorm_group' if cut is None else f'chunk_size to a multiple of {cut}'}"
        )
    parameters = [p for part in (model, loss) for p in _parameters(part)]
    embed, exact = _Embed(model), as_loss(loss)
    with one_update(model) as norms:
        result = backward(accelerator or _Plain(embed.device), model, embed, exact, chunks)
        sums = [norm.sums for norm in norms if norm.sums is not None]
        distributed.all_reduce_mean_([*_gradients(parameters), *sums])
    exact.commit()
    return result


def as_loss(loss: LossLike) -> Loss:
    """Make a loss of a function of a model's outputs and of the targets, if a batch has them."""
    return cast(Loss, loss) if hasattr(loss, "compares_clips") else FunctionLoss(loss)


class FunctionLoss(Loss):
    """A loss that is a function of the model's outputs; it returns a scalar."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function = function

    def __call__(self, outputs: Named, present: Named, /, *targets: Mapping[str, Any]) -> Result:
        """Call the function; the loss has no terms."""
        value = self.function(outputs, *targets)
        if not isinstance(value, Tensor) or value.ndim:
            got = f"shape {list(value.shape)}" if isinstance(value, Tensor) else repr(value)
            raise ValueError(f"the loss must return a scalar tensor; got {got}")
        return value, {}


class _Embed:
    """Calls a model with the same random numbers for the same chunk, different in every batch."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.device = model, next(model.parameters()).device
        self.seed = int(torch.randint(2**62, ()))

    def __call__(self, clips: Batch) -> Named:
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            first = zlib.crc32(clips.ids[0].encode())
            torch.manual_seed(mix(self.seed, distributed.rank(), first))
            return check_outputs(self.model(clips.to(self.device).inputs), clips)


@dataclasses.dataclass(frozen=True)
class _Plain:
    """What the exact step needs of an accelerator, in plain PyTorch."""

    device: torch.device

    def backward(self, loss: Tensor) -> None:
        loss.backward()


def _parameters(part: Any) -> Iterable[nn.Parameter]:
    parameters = part.parameters() if isinstance(part, nn.Module) else ()
    return (p for p in parameters if p.requires_grad)


def _gradients(parameters: list[nn.Parameter]) -> list[Tensor]:
    """Return the gradients; on every process of the parameters that any process has used."""
    if distributed.world_size() > 1:
        used = torch.tensor([float(p.grad is not None) for p in parameters])
        used = distributed.all_reduce_(used.to(parameters[0].device))
        for parameter, count in zip(parameters, used.tolist(), strict=True):
            if count and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
    return [p.grad for p in parameters if p.grad is not None]


def _open(path: Path, resume: bool, accelerator: Accelerator) -> tuple[RunFolder, bool]:
    """Make the folder of a run, or find the run that goes on; say whether there is one."""
    run = RunFolder(path, {"resume": resume, "overwrite": False})
    goes_on = [run.open() if accelerator.is_main_process else False]
    broadcast_object_list(goes_on)
    return run, goes_on[0]
