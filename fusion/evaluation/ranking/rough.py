"""Products in float32 that decide most comparisons, and their error.

Shapes: n rows, E embedding width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fusion.evaluation.ranking.side import Side, pieces

SAFE = 1e30  # divisors up to here, and down to its inverse, are numbers of float32 too
SUMMED = 768  # numbers of two rows that one product sums up
AT_ONCE = 2**16  # numbers that are divided at a time on a CPU
PROBE = 512  # rows and columns of the product that shows how a device computes


def error_of_width(width: int) -> float:
    """Bound the error of :func:`products` of rows of length 1 at most, see :mod:`.ranking`."""
    return 2.0**-23 * (min(width, SUMMED) + math.ceil(width / SUMMED) + 6)


def products(x: Tensor, y: Tensor) -> Tensor:
    """Multiply (B, E) by (T, E) rows: (B, T), as a sum of products of parts of the width.

    The error of a part is proportional to its width and, by Cauchy-Schwarz, the lengths of rows in
    all parts are together those of whole rows. So the error is that of one part, not of the width,
    and fewer scores are near.
    """
    total = x[:, :SUMMED] @ y[:, :SUMMED].T
    for start in range(SUMMED, x.shape[1], SUMMED):
        total += x[:, start : start + SUMMED] @ y[:, start : start + SUMMED].T
    return total


def product_type(device: torch.device) -> torch.dtype:
    """Return float32 if the device multiplies it as it is; else float64.

    With TF32, which a setting or ``TORCH_ALLOW_TF32_CUBLAS_OVERRIDE`` may choose, or bfloat16, the
    error would be a thousand times as large.
    """
    if torch.get_float32_matmul_precision() != "highest":
        return torch.float64
    if device.type == "cpu":
        return torch.float32
    numbers = torch.full((PROBE, PROBE), 1 + 2.0**-20, device=device)
    is_kept = (numbers @ torch.eye(PROBE, device=device)).equal(numbers)
    return torch.float32 if is_kept else torch.float64


def scaled_block(side: Side, divisors: Tensor, start: int, is_safe: bool, out: Tensor) -> Tensor:
    """Read the rows from ``start`` on and divide each by its divisor, into ``out`` (any, E).

    ``divisors`` are (n,) float64; they are all ``is_safe`` if float32 holds them and their inverse.
    """
    device, stop = divisors.device, start + len(out)
    # A mean of several parts takes some copies of its rows: on a CPU, of few at a time.
    size = max(1, AT_ONCE // side.width) if device.type == "cpu" else max(1, stop - start)
    for first, last in pieces(start, stop, size):
        rows, own = side.block(first, last, device), divisors[first:last, None]
        place = out[first - start : last - start]
        if out.dtype == torch.float64 or rows.dtype == torch.float64 or not is_safe:
            place.copy_(rows.double() / own)
        else:
            torch.mul(rows.float(), own.reciprocal().float(), out=place)
    return out


def are_safe(divisors: Tensor) -> bool:
    """Return whether float32 holds these numbers (n,) and their inverse."""
    return not len(divisors) or bool((divisors.max() < SAFE) & (divisors.min() > 1 / SAFE))
