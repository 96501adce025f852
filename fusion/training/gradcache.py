"""Exact gradients of a large contrastive batch in the memory of a small one.

Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup",
arXiv:2101.06983. A contrastive loss needs the embeddings of the whole batch, but not all
activations at a time: embed all chunks without keeping any, take the loss and its gradient by each
embedding, then embed each chunk again and go on from there. When the batch is one chunk, it is
embedded once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from fusion.models.batchnorm import no_update, one_update
from fusion.tokens import Batch

Outputs = Mapping[str, Tensor]
Loss = Callable[[dict[str, Tensor]], tuple[Tensor, dict[str, Tensor]]]


def backward_in_chunks(
    accelerator: Accelerator,
    model: nn.Module,
    loss: Loss,
    chunks: Sequence[Batch],
    arguments: Mapping[str, Any],
    seeds: Sequence[int],
) -> tuple[Tensor, dict[str, Tensor]]:
    """Accumulate in ``model`` the gradient of ``loss`` over all chunks taken as one batch.

    A model must treat every clip alone, but for BatchNorm over groups of clips
    (:class:`fusion.models.batchnorm.GroupedBatchNorm`), between which the chunks must be cut.

    Args:
        accelerator: scales the loss and holds back the exchange of gradients until the last chunk.
        model: maps the inputs of a chunk to named (B, …) outputs.
        loss: maps the outputs of all chunks to a scalar and its named terms.
        chunks: this process's share of the batch, in pieces that fit into memory one at a time.
        arguments: further arguments of the model.
        seeds: of the random numbers of each chunk, the same in both passes.

    Returns:
        The loss and its terms, detached.
    """
    if len(chunks) == 1:
        torch.manual_seed(seeds[0])
        outputs = model(chunks[0].inputs, **arguments)
        value, terms = loss(outputs)
        # With the second part every parameter has a gradient, whatever the loss reads: DDP waits.
        unread = torch.stack([output.sum() for output in outputs.values()]).sum()
        accelerator.backward(value + 0.0 * unread)
        return value.detach(), terms
    with torch.no_grad(), one_update(model):
        parts = []
        for chunk, seed in zip(chunks, seeds, strict=True):
            torch.manual_seed(seed)
            parts.append(model(chunk.inputs, **arguments))
    leaves = {name: torch.cat([part[name] for part in parts]).requires_grad_() for name in parts[0]}
    value, terms = loss(leaves)
    accelerator.backward(value)  # as far as the embeddings
    sizes = [len(chunk.ids) for chunk in chunks]
    gradients = {
        name: (torch.zeros_like(leaf) if leaf.grad is None else leaf.grad).split(sizes)
        for name, leaf in leaves.items()
    }
    with no_update(model):
        for i, (chunk, seed) in enumerate(zip(chunks, seeds, strict=True)):
            is_last = i == len(chunks) - 1
            with contextlib.nullcontext() if is_last else accelerator.no_sync(model):
                torch.manual_seed(seed)
                outputs = model(chunk.inputs, **arguments)
                torch.autograd.backward(
                    list(outputs.values()), [gradients[name][i] for name in outputs]
                )
    return value.detach(), terms
