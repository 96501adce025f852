"""Batches of any structure, for data sets that are not ours; how batches are read.

Shapes: B items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fusion.signals import leave_stopping_to_parent, stops_blocked
from fusion.tokens import Batch, Tokens, map_nested

Collate = Callable[[list[Any]], Any]


def as_batch(inputs: Any, ids: Sequence[str] | None = None) -> Batch:
    """Make a batch of what a model takes; a :class:`.Batch` is returned as it is.

    Args:
        inputs: a tensor with B rows, or mappings, tuples and lists of such tensors, at any depth.
            :class:`.Tokens` and lists of B texts or numbers are cut like tensors. A single value,
            such as a number, is for the whole batch.
        ids: B names; the numbers of the rows if not given.

    Raises:
        ValueError: nothing has rows, or two parts differ in their number.
    """
    if isinstance(inputs, Batch):
        return inputs
    counts: dict[int, str] = {} if ids is None else {len(ids): "the batch"}

    def count(part: Any) -> None:
        what = f"a tensor of shape {list(part.shape)}" if isinstance(part, Tensor) else "a list"
        if isinstance(part, Tokens):
            counts.setdefault(part.num_clips, "the Tokens of a modality")
        elif isinstance(part, list | tuple) or (isinstance(part, Tensor) and part.ndim):
            counts.setdefault(len(part), what)

    map_nested(inputs, count)
    if not counts:
        raise ValueError(f"a batch must hold tensors with a row for each item; got {inputs!r}")
    if len(counts) > 1:
        rows = ", ".join(f"{what} {number}" for number, what in counts.items())
        raise ValueError(
            f"all parts of a batch must have a row for each item, but there are: {rows}; put"
            " sequences of different lengths into fusion.Tokens.pack"
        )
    return Batch(tuple(ids or map(str, range(next(iter(counts))))), inputs)


class NumberedItems(Dataset[tuple[int, Any]]):
    """The items of any data set with their numbers; a :class:`.TrainingSet`.

    ``begin_epoch``, ``set_epoch``, ``end_epoch`` and ``group`` of the data set are used if it has
    them.

    Raises:
        ValueError: the data set has no length.
    """

    def __init__(self, items: Any) -> None:
        if not hasattr(items, "__len__"):
            raise ValueError(
                f"{type(items).__name__} has no __len__; a data set must have __len__ and"
                " __getitem__, as the order of its items is drawn anew in each epoch"
            )
        self.items = items
        self.group: int | Sequence[int] = getattr(items, "group", 1)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[int, Any]:
        """Return the number of an item and the item."""
        return index, self.items[index]

    def set_epoch(self, seed: int) -> None:
        """Pass on the seed of an epoch."""
        if hasattr(self.items, "set_epoch"):
            self.items.set_epoch(seed)

    def begin_epoch(self, number: int) -> None:
        """Pass on the number of an epoch."""
        if hasattr(self.items, "begin_epoch"):
            self.items.begin_epoch(number)

    def end_epoch(self) -> None:
        """Pass on the end of an epoch."""
        if hasattr(self.items, "end_epoch"):
            self.items.end_epoch()


class NumberedCollate:
    """Makes a batch of :class:`NumberedItems`; ``collate`` is that of the data set."""

    def __init__(self, collate: Collate) -> None:
        self.collate = collate

    def __call__(self, numbered: Sequence[tuple[int, Any]]) -> Batch:
        """Collate the items; their ids are their numbers unless ``collate`` makes a Batch."""
        ids = [str(number) for number, _ in numbered]
        return as_batch(self.collate([item for _, item in numbered]), ids)


def start_reading(loader: DataLoader[Any]) -> Iterator[Any]:
    """Begin to read batches; the workers of the loader leave it to this process to stop."""
    loader.worker_init_fn = leave_stopping_to_parent
    with stops_blocked():  # until the workers ignore them
        batches = iter(loader)
    for worker in getattr(batches, "_workers", ()):
        worker.terminate = worker.kill  # the end of one that does not answer
    return batches
