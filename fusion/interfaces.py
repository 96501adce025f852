"""What the trainer needs of a loss and of a data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from torch import Tensor

from fusion.tokens import Batch

Named = Mapping[str, Tensor]
Embed = Callable[[Batch], Named]  # calls the model; gives named (B, …) outputs
Parts = dict[str, Tensor]  # named scalars, for the log
Result = tuple[Tensor, Parts]  # the loss, a scalar, and its terms


class Loss(Protocol):
    """A loss without state defines ``__call__``; one with state all methods, see :class:`.MCNLoss`.

    If ``compares_clips``, the loss of a clip depends on the other clips of the batch. The loss then
    gathers the embeddings of all ranks itself, and its gradient is that of the batch times the
    world size, see :mod:`fusion.distributed`. If not, the loss is a mean over single clips, and
    each chunk is embedded once instead of twice.
    """

    compares_clips: bool = True

    def __call__(self, outputs: Named, present: Named, /, *targets: Mapping[str, Any]) -> Result:
        """Compute the loss of the whole batch; every rank passes its b clips.

        ``outputs`` of the model are (b, …); ``present`` is (b,) bool for each modality, which clips
        have it. ``targets`` is one mapping, or nothing if the clips have none.
        """

    def commit(self) -> None:
        """Keep the state after the last call: the step is taken."""
        return None

    def undo(self) -> None:
        """Restore the state before the last call: the step is repeated or skipped."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs; empty if the loss has no state."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Restore what :meth:`state_dict` returned, on any number of ranks."""
        return None


class TrainingSet(Protocol):
    """The clips to train on; ``group`` neighbouring clips stay together in a batch."""

    group: int

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...

    def set_epoch(self, seed: int, /) -> None:
        """Choose what is drawn at random in the coming epoch, as a function of ``seed`` alone."""

    def end_epoch(self) -> None:
        """Called after each epoch, such as to report unreadable files."""
