"""What the trainer needs of a loss and of a data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from torch import Tensor

from fusion.tokens import Batch

Named = Mapping[str, Tensor]
Embed = Callable[[Batch], Named]  # calls the model; gives named (B, …) outputs
Result = tuple[Tensor, dict[str, Tensor]]  # the loss and its named terms, all scalars


class Loss(Protocol):
    """A loss, see :data:`fusion.losses.LOSSES`.

    Attributes:
        compares_clips: whether the loss of a clip depends on the other clips of the batch. If so,
            the loss gathers the embeddings of all ranks itself, and its gradient is that of the
            batch times the number of ranks, see :mod:`fusion.distributed`. If not, it is a mean
            over single clips, and each chunk is embedded once instead of twice.
    """

    compares_clips: bool

    def __call__(self, outputs: Named, present: Named, /, *targets: Mapping[str, Any]) -> Result:
        """Compute the loss of (B, …) outputs; ``present``: for each modality (B,) bool.

        ``targets`` is one mapping, or nothing if the clips have none.
        """

    def commit(self) -> None:
        """Keep the new state: the step is taken."""

    def undo(self) -> None:
        """Restore the state from before the step: the step is repeated or skipped."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs; empty if the loss has no state."""

    def load_state_dict(self, state: Mapping[str, Any], /) -> Any:
        """Restore what :meth:`state_dict` returned."""


class TrainingSet(Protocol):
    """The clips to train on; ``group`` neighbouring clips stay together in a batch."""

    group: int

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...

    def set_epoch(self, seed: int, /) -> None:
        """Choose what is drawn at random in the coming epoch, as a function of ``seed`` alone."""

    def end_epoch(self) -> None:
        """Called after each epoch, such as to report unreadable files."""
