"""Contrastive losses of lists of embeddings that pair up row by row.

Losses between the same embeddings share unit vectors and collectives. The B x B similarities are
computed in tiles, see :mod:`fusion.losses.tiled`; a small matrix is one tile, and is kept.

Shapes: B clips of all ranks, b of this one, E embedding width, P pairs of lists, R rows of a tile.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fusion.distributed import world_size
from fusion.losses.tiled import Normalize, Setting, SymmetricInfoNCE, no_autocast

KEPT_BYTES = 128 * 2**20  # the matrices of all pairs are kept up to this size
TILE_BYTES = 16 * 2**20  # a larger one is computed in tiles of about this size
LOWEST_TEMPERATURE = 0.003
LARGEST_MARGIN = 2
FLOAT32_RANGE = 80  # exp(-80) is a normal float32


def nce(
    x: Tensor,
    y: Tensor,
    temperature: float = 0.05,
    valid: Tensor | None = None,
    tile: int | None = None,
) -> Tensor:
    """Symmetric InfoNCE (arXiv:1807.03748) of cosines.

    Row i of ``y`` is the positive of row i of ``x``; all other rows are negatives. As in EAO the
    losses of the two directions are added; CLIP averages them.

    Args:
        x: (b, E) embeddings; they are normalised here.
        y: (b, E) embeddings, paired with ``x`` row by row.
        temperature: divides the cosine similarities; smaller is sharper.
        valid: (b,) bool, the pairs that count; all if not given. Others may hold anything.
        tile: R; chosen by the size of the matrix if not given.

    Returns:
        A scalar, at least 0, the mean over the pairs of all ranks; 0 if no pair is valid.

    Raises:
        ValueError: the two batches differ in shape, or the temperature is too low for float32.
    """
    if not temperature >= LOWEST_TEMPERATURE:
        raise ValueError(f"temperature must be at least {LOWEST_TEMPERATURE}; got {temperature}")
    valid = None if valid is None else valid[None]
    return contrast([x, y], [(0, 1)], 1 / temperature, 0.0, valid, tile)[0][0]


def mms(
    x: Tensor,
    y: Tensor,
    margin: float = 0.001,
    valid: Tensor | None = None,
    tile: int | None = None,
    normalize: bool = True,
) -> Tensor:
    """Masked margin softmax (arXiv:1910.08841): :func:`nce` with a margin and no temperature.

    Args:
        x: see :func:`nce`.
        y: see :func:`nce`.
        margin: subtracted from the similarity of each pair.
        valid: see :func:`nce`.
        tile: see :func:`nce`.
        normalize: compare by cosine, as EAO does; by dot product otherwise, as AVLnet and MCN do.

    Returns:
        A scalar, the mean over the pairs of all ranks; 0 if no pair is valid.

    Raises:
        ValueError: the two batches differ in shape, or the margin is wider than any two cosines.
    """
    check_margin(margin)
    valid = None if valid is None else valid[None]
    return contrast([x, y], [(0, 1)], 1.0, margin, valid, tile, normalize)[0][0]


def check_margin(margin: float) -> None:
    """Check the range of a margin.

    Raises:
        ValueError: it is out of range.
    """
    if not abs(margin) <= LARGEST_MARGIN:
        raise ValueError(
            f"loss.margin must be between -{LARGEST_MARGIN} and {LARGEST_MARGIN}; got {margin}"
        )


def contrast(
    embeddings: Sequence[Tensor],
    pairs: Sequence[tuple[int, int]],
    scale: float = 1.0,
    margin: float = 0.0,
    valid: Tensor | None = None,
    tile: int | None = None,
    normalize: bool = True,
) -> tuple[Tensor, Tensor]:
    """Compute several losses like :func:`nce` between the same embeddings.

    Args:
        embeddings: (b, E) each, all of the same clips.
        pairs: which two of them each loss compares.
        scale: multiplies the similarities.
        margin: subtracted from those of positives before that.
        valid: (P, b) bool, the clips that count in each loss; all if not given.
        tile: see :func:`nce`.
        normalize: see :func:`mms`.

    Returns:
        (P,) values, the same on every rank, and (P,) numbers of clips: each value is a mean over
        so many clips of all ranks.

    Raises:
        ValueError: two lists differ in shape.
    """
    shapes = [tuple(side.shape) for side in embeddings]
    if len(set(shapes)) > 1:
        raise ValueError(f"embeddings must pair up row by row; got {', '.join(map(str, shapes))}")
    dtype = torch.promote_types(embeddings[0].dtype, torch.float32)
    sides = [side.to(dtype) for side in embeddings]
    num_rows = len(sides[0])
    weights = sides[0].new_ones(len(pairs), num_rows) if valid is None else valid.to(dtype)
    if valid is not None:  # rows that no loss reads may hold anything, even NaN
        for n, side in enumerate(sides):
            read = torch.stack(
                [flags for flags, pair in zip(valid, pairs, strict=True) if n in pair]
            )
            sides[n] = side.masked_fill(~read.any(dim=0)[:, None], 0)
    highest = scale * (1 + max(0.0, -margin))
    lowest = -scale * (1 + max(0.0, margin))
    shift = highest if normalize and highest - lowest <= FLOAT32_RANGE else None
    row_bytes = world_size() * num_rows * sides[0].element_size()
    small = row_bytes * num_rows * len(pairs) <= KEPT_BYTES
    keep = tile is None and small and shift is not None
    rows = num_rows if keep else tile or TILE_BYTES // max(1, row_bytes)
    setting = Setting(list(pairs), scale, margin, max(1, rows), keep, shift)
    with no_autocast(sides[0]):
        if normalize:
            sides = [Normalize.apply(side) for side in sides]
        return SymmetricInfoNCE.apply(setting, weights, *sides)
