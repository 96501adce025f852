"""Score-level calibration: from a similarity to the log-likelihood ratio of match to no match.

A log-likelihood ratio (LLR) says how much more likely a score is for a matching pair than for
another one. It is 0 where the score says nothing, so LLRs of several modalities can be added, and a
modality that a clip lacks contributes 0.

Shapes: P matching pairs, O others, Q queries, M rows of the gallery, K knots.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]
RIDGE = 1e-4  # of weights in units of 1 / deviation: finite also where every pair is found
DIGITS = 3  # of a weight; more would be noise
CELLS = 64  # of the grid that scores are counted on


class Curve(NamedTuple):
    """A piecewise linear function that never falls, from scores to LLRs."""

    x: Floats  # (K,) rising
    y: Floats  # (K,)
    slope: float  # before the first knot and after the last

    def __call__(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Return the values and the slopes at float64 scores, of the same shape."""
        x, y = (torch.as_tensor(values, dtype=torch.float64) for values in (self.x, self.y))
        end = torch.tensor([self.slope], dtype=torch.float64)
        slopes = torch.cat([end, y.diff() / x.diff(), end])  # (K + 1,)
        place = torch.searchsorted(x, scores.contiguous(), right=True)
        knot, slope = (place - 1).clamp(min=0), slopes[place]
        return y[knot] + slope * (scores - x[knot]), slope


def isotonic_curve(matching: Floats, others: Floats, cells: int = CELLS) -> Curve:
    """Fit the LLR by isotonic regression (PAV) with Laplace's rule.

    Scores are counted at the points of an even grid; one that lies between two points is shared
    among them, so that counts do not jump where rounding moves a score. Blocks of pooled points
    have the LLR of their counts. As in the BOSARIS toolkit (arXiv:1304.2865), a matching pair and
    another one are added at both ends, so every LLR is finite. A block's knot is the middle
    between the mean of its matching scores and the mean of its others. Between knots the function
    is linear, so it rises within blocks too and makes no new ties; beyond the first and the last
    one it has the mean slope of all knots.

    Args:
        matching: (P,) scores of matching pairs, P > 0.
        others: (O,) scores of other pairs, O > 0.
        cells: of the grid, from the lowest score to the highest.
    """
    from scipy.optimize import isotonic_regression  # takes half a second to import

    low, high = (float(f([f(matching), f(others)])) for f in (np.min, np.max))
    if high <= low:
        return Curve(np.array([low]), np.zeros(1), 0.0)
    grid = np.linspace(low, high, cells + 1)
    counts = np.stack([_count(s, low, high, cells) for s in (matching, others)])  # (2, cells + 1)
    added = counts.copy()
    added[:, [0, -1]] += 1
    sizes = added.sum(axis=0)
    grid, counts, added, sizes = (values[..., sizes > 0] for values in (grid, counts, added, sizes))
    levels = isotonic_regression(added[0] / sizes, weights=sizes).x
    starts = np.flatnonzero(np.diff(levels, prepend=-1) > 1e-12)
    found, missed = np.add.reduceat(added, starts, axis=1)
    y = np.log(found / missed) - np.log((len(matching) + 2) / (len(others) + 2))
    numbers = np.add.reduceat(counts, starts, axis=1)  # (2, K)
    is_there = numbers > 0
    means = np.add.reduceat(counts * grid, starts, axis=1) / np.where(is_there, numbers, 1)
    x = np.where(is_there, means, 0).sum(axis=0) / is_there.sum(axis=0)
    slope = float((y[-1] - y[0]) / (x[-1] - x[0])) if len(x) > 1 else 0.0
    return Curve(x, y, slope)


def _count(scores: Floats, low: float, high: float, cells: int) -> Floats:
    """Count scores at the points of a grid, (cells + 1,), sharing each among its neighbours."""
    place = (scores - low) / (high - low) * cells
    left = np.clip(np.floor(place).astype(np.int64), 0, cells - 1)
    share = place - left
    below, above = np.bincount(left, 1 - share, cells + 1), np.bincount(left + 1, share, cells + 1)
    return np.asarray(below + above, np.float64)


def linear_curve(weight: float, others: Floats) -> Curve:
    """Return ``weight * score``, shifted so that it is an LLR.

    The likelihood ratio has the mean 1 over other pairs, as a likelihood ratio must.

    Args:
        weight: of the score.
        others: (O,) scores of other pairs, O > 0.
    """
    values = weight * others
    high = values.max(initial=-np.inf)
    offset = float(high + np.log(np.exp(values - high).mean()))
    return Curve(np.zeros(1), np.array([round(-offset, 6)]), weight)


def fit_weights(parts: Sequence[Floats], own: NDArray[np.bool_]) -> tuple[list[float], float]:
    """Fit weights of at least 0 to scores that are added, by the cross-entropy of matching pairs.

    The loss is the mean over matching pairs of two cross-entropies of a softmax: of the pair among
    the gallery, and of the pair among the queries; rows of the same clip do not compete. It is
    convex. A small quadratic term (``RIDGE``) makes its minimum unique.

    Args:
        parts: (Q, M) scores of each part.
        own: (Q, M) which pairs match.

    Returns:
        A weight for each part, rounded to ``DIGITS`` digits, and the loss in nats.
    """
    from scipy.optimize import minimize  # takes half a second to import

    deviations = [float(part[~own].std()) if not own.all() else 0.0 for part in parts]
    # A score that is the same for all pairs says nothing.
    used = [i for i, deviation in enumerate(deviations) if deviation > 1e-9]
    if not used:
        return [0.0] * len(parts), cross_entropy(np.zeros(len(parts)), parts, own)[0]
    found = minimize(
        cross_entropy,
        np.ones(len(used)),
        args=([parts[i] / deviations[i] for i in used], own),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0, None)] * len(used),
        options={"ftol": 1e-13, "gtol": 1e-8, "maxiter": 1000},
    )
    weights = [0.0] * len(parts)
    for i, weight in zip(used, found.x.tolist(), strict=True):
        weights[i] = float(f"{weight / deviations[i]:.{DIGITS}g}")
    return weights, float(found.fun)


def cross_entropy(
    weights: Floats, parts: Sequence[Floats], own: NDArray[np.bool_]
) -> tuple[float, Floats]:
    """Return the loss of :func:`fit_weights`, in nats, and its gradient by the weights."""
    total = np.zeros(own.shape)
    for weight, part in zip(weights, parts, strict=True):
        total += weight * part
    rows, columns = np.nonzero(own)
    loss, gradient = 0.0, np.zeros(len(parts))
    for axis, line in ((1, rows), (0, columns)):
        others = np.where(own, -np.inf, total)
        high = np.maximum(others.max(axis=axis, keepdims=True), -1e300)  # a line may have none
        shares = np.exp(others - high)
        sums = shares.sum(axis=axis, keepdims=True)
        with np.errstate(divide="ignore"):
            rivals = (high + np.log(sums)).reshape(-1)[line]
        gap = rivals - total[rows, columns]  # (P,)
        loss += float(np.logaddexp(0, gap).mean())
        wrong = np.exp(-np.logaddexp(0, -gap))
        for i, part in enumerate(parts):
            expected = (shares * part).sum(axis=axis) / np.maximum(sums.reshape(-1), 1e-300)
            gradient[i] += (wrong * (expected[line] - part[rows, columns])).mean()
    return loss + RIDGE / 2 * float((weights**2).sum()), gradient + RIDGE * weights
