"""Contrastive losses of two lists of embeddings that pair up row by row.

Shapes: B pairs, E embedding width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def nce(x: Tensor, y: Tensor, temperature: float = 0.05) -> Tensor:
    """Make each row of ``x`` find its partner among the rows of ``y``, and the reverse.

    Also called InfoNCE (arXiv:1807.03748). As in EAO the losses of the two directions are added;
    CLIP averages them.

    Args:
        x: (B, E) embeddings; they are normalised here.
        y: (B, E) embeddings; row i is the positive of row i of ``x``, all others are negatives.
        temperature: divides the cosine similarities; smaller is sharper.

    Returns:
        A scalar, at least 0.

    Raises:
        ValueError: the two batches differ in shape.
    """
    return _both_directions(_cosines(x, y) / temperature)


def mms(x: Tensor, y: Tensor, margin: float = 0.001) -> Tensor:
    """Masked margin softmax (Ilharco et al., arXiv:1910.08841), as AVLnet and MCN use it.

    Unlike :func:`nce` it has no temperature, and a positive must win by ``margin``.

    Args:
        x: (B, E) embeddings; they are normalised here.
        y: (B, E) embeddings, paired with ``x`` row by row.
        margin: subtracted from the cosine similarity of each pair.

    Returns:
        A scalar, at least 0.

    Raises:
        ValueError: the two batches differ in shape.
    """
    cosines = _cosines(x, y)
    return _both_directions(cosines - margin * torch.eye(len(x), device=x.device, dtype=x.dtype))


def _cosines(x: Tensor, y: Tensor) -> Tensor:
    if x.shape != y.shape:
        raise ValueError(f"x and y must pair up row by row; got {tuple(x.shape)}, {tuple(y.shape)}")
    return F.normalize(x, dim=-1) @ F.normalize(y, dim=-1).T  # (B, B)


def _both_directions(logits: Tensor) -> Tensor:
    target = torch.arange(len(logits), device=logits.device)
    return F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)
