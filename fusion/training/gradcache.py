"""Exact gradients of a large contrastive batch in the memory of a small one.

Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup",
arXiv:2101.06983. A contrastive loss needs the embeddings of the whole batch, but not all
activations at a time: embed all chunks without keeping any, take the loss and its gradient by each
embedding, then embed each chunk again and go on from there. When the batch is one chunk, it is
embedded once.

Ranks meet in the loss alone: within a chunk nobody waits for anybody, and each rank may cut its
share as its memory allows. The gradients of the parameters are this rank's own; averaging them
over the ranks is up to the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from fusion.models.batchnorm import no_update
from fusion.tokens import Batch

Embed = Callable[[Batch], Mapping[str, Tensor]]
Named = Mapping[str, Tensor]
Loss = Callable[[Named, Named], tuple[Tensor, dict[str, Tensor]]]


def backward_in_chunks(
    accelerator: Accelerator, model: nn.Module, embed: Embed, loss: Loss, chunks: Sequence[Batch]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Accumulate in ``model`` the gradient of ``loss`` over all chunks taken as one batch.

    A model must treat every clip alone, but for BatchNorm over groups of clips
    (:class:`fusion.models.batchnorm.GroupedBatchNorm`), between which the chunks must be cut.

    Args:
        accelerator: scales the loss.
        model: whose running statistics see each chunk once.
        embed: calls the model with a chunk; gives named (B, …) outputs, the same each time.
        loss: maps the outputs of all chunks, and which of their clips have which modality, to a
            scalar and its named terms.
        chunks: this rank's share of the batch, in pieces that fit into memory one at a time.

    Returns:
        The loss and its terms, detached.
    """
    if len(chunks) == 1:
        value, terms = loss(embed(chunks[0]), _present(chunks, accelerator))
        accelerator.backward(value)
        return _detached(value, terms)
    with torch.no_grad():
        parts = [embed(chunk) for chunk in chunks]
        leaves = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    del parts
    for leaf in leaves.values():
        leaf.requires_grad_(leaf.is_floating_point())
    value, terms = loss(leaves, _present(chunks, accelerator))
    accelerator.backward(value)  # as far as the embeddings
    value, terms = _detached(value, terms)  # whose graph holds all embeddings
    read = {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
    del leaves, leaf
    first = 0
    with no_update(model):
        for chunk in chunks:
            mine = slice(first, first := first + len(chunk.ids))
            outputs = embed(chunk)
            names = [name for name in read if outputs[name].requires_grad]
            torch.autograd.backward(
                [outputs[name] for name in names], [read[name][mine] for name in names]
            )
            del outputs
    return value, terms


def accumulate(
    accelerator: Accelerator, embed: Embed, loss: Loss, chunks: Sequence[Batch]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Add up the gradients of chunk after chunk, for a loss that is a mean over single clips.

    Each chunk is embedded once. For a contrastive loss the result would be another: the negatives
    of a clip would be those of its chunk.

    Args:
        accelerator: see :func:`backward_in_chunks`.
        embed: see :func:`backward_in_chunks`.
        loss: the mean over the given clips, and its named terms.
        chunks: see :func:`backward_in_chunks`.

    Returns:
        The loss and its terms, detached.
    """
    count = sum(len(chunk.ids) for chunk in chunks)
    total, sums = torch.zeros((), device=accelerator.device), dict[str, Tensor]()
    for chunk in chunks:
        value, terms = loss(embed(chunk), _present([chunk], accelerator))
        share = len(chunk.ids) / count
        accelerator.backward(share * value)
        total = total + share * value.detach()
        sums = {name: sums.get(name, 0) + share * term.detach() for name, term in terms.items()}
    return total, sums


def _present(chunks: Sequence[Batch], accelerator: Accelerator) -> dict[str, Tensor]:
    """Say, on the device, which clips of all chunks have which modality."""
    parts = [chunk.present for chunk in chunks]
    together = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return {
        name: flags.to(accelerator.device, non_blocking=True) for name, flags in together.items()
    }


def _detached(value: Tensor, terms: Named) -> tuple[Tensor, dict[str, Tensor]]:
    return value.detach(), {name: term.detach() for name, term in terms.items()}
