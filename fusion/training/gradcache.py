"""Exact gradients of a large contrastive batch in the memory of a small one.

Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup",
arXiv:2101.06983. A contrastive loss needs the embeddings of the whole batch, but not all
activations at the same time:

1. embed every chunk without keeping activations;
2. compute the loss of the batch and its gradient with respect to each embedding;
3. embed each chunk again and continue the backward pass from the gradients of its embeddings.

Ranks communicate only inside the loss, so each rank may use another chunk size. The gradients of
the parameters are those of this rank; the caller averages them over the ranks.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from fusion import distributed
from fusion.interfaces import Embed, Loss, Named, Result
from fusion.models.batchnorm import no_update
from fusion.tokens import Batch
from fusion.training.memory import features_of

LastChunk = Callable[[], AbstractContextManager[object]]


def backward(
    accelerator: Accelerator,
    model: nn.Module,
    embed: Embed,
    loss: Loss,
    chunks: Sequence[Batch],
    embedded: Callable[[], None] = lambda: None,
    last_chunk: LastChunk = nullcontext,
) -> Result:
    """Do what the loss allows: :func:`accumulate` if it compares no clips, else the other.

    ``embedded`` is called when all clips are embedded, before a loss that compares them. The last
    backward pass through the model is within ``last_chunk()``: all gradients are complete then.
    """
    if loss.compares_clips:
        return backward_in_chunks(accelerator, model, embed, loss, chunks, embedded, last_chunk)
    result = accumulate(accelerator, embed, loss, chunks, last_chunk)
    distributed.all_reduce_mean_([result[0], *result[1].values()])
    return result


def check_outputs(outputs: Any, clips: Batch) -> Named:
    """Return what a model gave for some clips; a ValueError says that it is not named rows."""
    if not isinstance(outputs, Mapping):
        kind = type(outputs).__name__
        raise ValueError(f"the model must return a dict of named (B, …) tensors; got a {kind}")
    for name, rows in outputs.items():
        if not isinstance(rows, Tensor) or rows.ndim == 0 or len(rows) != len(clips.ids):
            got = f"shape {list(rows.shape)}" if isinstance(rows, Tensor) else type(rows).__name__
            raise ValueError(
                f"output {name!r} of the model must be a tensor with a row for each of"
                f" {len(clips.ids)} items; got {got}"
            )
    return outputs


def backward_in_chunks(
    accelerator: Accelerator,
    model: nn.Module,
    embed: Embed,
    loss: Loss,
    chunks: Sequence[Batch],
    embedded: Callable[[], None] = lambda: None,
    last_chunk: LastChunk = nullcontext,
) -> Result:
    """Accumulate in ``model`` the gradient of ``loss`` over all chunks taken as one batch.

    The model must treat every clip alone, except for BatchNorm over groups of clips
    (:class:`fusion.models.batchnorm.GroupedBatchNorm`); chunks are cut between groups. Its running
    statistics see each chunk once. ``embed`` must give the same outputs each time. A single chunk
    is embedded once. For the other arguments see :func:`backward`. Returns the loss and its terms,
    detached.
    """
    order = _largest_first(chunks)
    with torch.set_grad_enabled(len(chunks) == 1):
        parts = {number: embed(chunks[number]) for number in order}
    kept = parts[0] if len(chunks) == 1 else None
    with torch.no_grad():
        leaves = {
            name: torch.cat([parts[number][name] for number in range(len(chunks))])
            if kept is None
            else part.detach()
            for name, part in parts[0].items()
        }
    del parts
    for leaf in leaves.values():
        leaf.requires_grad_(leaf.is_floating_point())
    embedded()
    value, terms = loss(leaves, *_known(chunks, accelerator))
    accelerator.backward(value)  # as far as the embeddings
    # Detach: the graph holds all embeddings.
    value, terms = value.detach(), {name: term.detach() for name, term in terms.items()}
    read = {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
    del leaves, leaf
    firsts = [0, *itertools.accumulate(len(chunk.ids) for chunk in chunks)]
    with no_update(model):
        for number in order:
            mine = slice(firsts[number], firsts[number + 1])
            outputs = embed(chunks[number]) if kept is None else kept
            names = [name for name in read if outputs[name].requires_grad]
            with last_chunk() if number == order[-1] else nullcontext():
                torch.autograd.backward(
                    [outputs[name] for name in names], [read[name][mine] for name in names]
                )
            del outputs
    return value, terms


def accumulate(
    accelerator: Accelerator,
    embed: Embed,
    loss: Loss,
    chunks: Sequence[Batch],
    last_chunk: LastChunk = nullcontext,
) -> Result:
    """Accumulate the gradients of chunk after chunk, each embedded once.

    Only for a loss with ``compares_clips`` False: a contrastive loss would see only the negatives
    of one chunk. Returns the loss and its terms, detached.
    """
    count = sum(len(chunk.ids) for chunk in chunks)
    total, sums = torch.zeros((), device=accelerator.device), dict[str, Tensor]()
    order = _largest_first(chunks)
    for number in order:
        chunk = chunks[number]
        value, terms = loss(embed(chunk), *_known([chunk], accelerator))
        share = len(chunk.ids) / count
        with last_chunk() if number == order[-1] else nullcontext():
            accelerator.backward(share * value)
        total = total + share * value.detach()
        sums = {name: sums.get(name, 0) + share * term.detach() for name, term in terms.items()}
    return total, sums


def _largest_first(chunks: Sequence[Batch]) -> list[int]:
    """Order chunks so that a lack of memory shows before any work is done in vain."""
    features = [sum(features_of(chunk)) for chunk in chunks]
    return sorted(range(len(chunks)), key=features.__getitem__, reverse=True)


def _known(chunks: Sequence[Batch], accelerator: Accelerator) -> list[dict[str, Any]]:
    """Return on the device which clips have which modality, then their targets, if any."""

    def together(parts: Sequence[Any]) -> Any:
        if isinstance(parts[0], Tensor):
            return torch.cat(list(parts)).to(accelerator.device, non_blocking=True)
        return [value for part in parts for value in part]

    known: list[list[Any]] = [[c.present for c in chunks]]
    if chunks[0].targets:
        known.append([c.targets for c in chunks])
    return [
        {name: together([part[name] for part in parts]) for name in parts[0]} for parts in known
    ]
