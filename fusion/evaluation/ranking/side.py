"""One side of a direction: embeddings that are read block by block, never copied as a whole.

Shapes: n rows, E embedding width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from fusion.evaluation.ranking.exact import lengths_of, rows_of_piece

ON_DEVICE = 64  # times the rows of a piece on a CPU


class Side:
    """Rows that are the mean of the rows of one or more tensors.

    Args:
        parts: (any, E) tensors, on the CPU.
        places: for each part the (n,) int64 places of the rows in it; None: all, in their order.
    """

    def __init__(
        self, parts: Sequence[Tensor], places: Sequence[Tensor | None] | None = None
    ) -> None:
        chosen = [None] * len(parts) if places is None else list(places)
        # Rows that follow one another are read without a copy.
        self.parts = [
            (part, None if own is None or _is_all(own, part) else own)
            for part, own in zip(parts, chosen, strict=True)
        ]
        part, own = self.parts[0]
        self.count, self.width = len(part) if own is None else len(own), part.shape[1]

    def __len__(self) -> int:
        """Number of rows."""
        return self.count

    def part(self, rows: slice) -> Side:
        """Keep neighbouring rows, without a copy."""
        kept = [
            (part[rows], None) if own is None else (part, own[rows]) for part, own in self.parts
        ]
        return Side([part for part, _ in kept], [own for _, own in kept])

    def block(self, start: int, stop: int, device: torch.device) -> Tensor:
        """Read neighbouring rows: (stop - start, E)."""
        return _mean(
            [
                (part[start:stop] if own is None else part[own[start:stop]]).to(device)
                for part, own in self.parts
            ]
        )

    def pick(self, rows: Tensor, device: torch.device) -> Tensor:
        """Read any rows: (n, E)."""
        rows = rows.cpu()
        return _mean(
            [part[rows if own is None else own[rows]].to(device) for part, own in self.parts]
        )

    def lengths(self, start: int, stop: int, device: torch.device) -> Tensor:
        """Return the lengths of neighbouring rows, (stop - start,) float64."""
        # Small results kept between large ones that are freed would break up the memory.
        found = torch.empty(stop - start, dtype=torch.float64, device=device)
        for first, last in pieces(start, stop, self.piece(device)):
            found[first - start : last - start] = lengths_of(self.block(first, last, device))
        return found

    def piece(self, device: torch.device) -> int:
        """Return how many rows are converted to float64 at a time."""
        rows = rows_of_piece(self.parts[0][0])
        return rows if device.type == "cpu" else rows * ON_DEVICE


def pieces(start: int, stop: int, size: int) -> Iterator[tuple[int, int]]:
    """Cut a range into pieces of at most ``size``."""
    for first in range(start, stop, size):
        yield first, min(first + size, stop)


def _mean(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.stack(list(parts)).mean(dim=0)


def _is_all(places: Tensor, part: Tensor) -> bool:
    return len(places) == len(part) and places.equal(torch.arange(len(part)))
