"""What the trainer needs of a loss and of a data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from torch import Tensor

from fusion.tokens import Batch

Named = Mapping[str, Tensor]
Embed = Callable[[Batch], Named]  # calls the model; gives named (B, …) outputs
Result = tuple[Tensor, dict[str, Tensor]]


class Loss(Protocol):
    """A loss, see :data:`fusion.losses.LOSSES`.

    Attributes:
        compares_clips: whether the loss of a clip depends on the other clips of the batch, as in a
            contrastive loss. Such a loss gathers the embeddings of all ranks itself, and the
            gradient that it gives to the embeddings of this rank is that of the batch times the
            number of ranks, see :mod:`fusion.distributed`. Otherwise the loss is a mean over
            single clips, and each chunk is embedded once instead of twice.
    """

    compares_clips: bool

    def __call__(self, outputs: Named, present: Named, /, *targets: Mapping[str, Any]) -> Result:
        """Compute the loss and its named terms, all scalars.

        Args:
            outputs: named (B, …) outputs of the model.
            present: for each modality (B,) bool, which clips have it.
            targets: one mapping, the targets of the batch, if its clips have any; else nothing.
        """

    def commit(self) -> None:
        """Keep the new state: the step is taken."""

    def undo(self) -> None:
        """Go back to the state before the step: it is repeated or left out."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs; empty if the loss has no state."""

    def load_state_dict(self, state: Mapping[str, Any], /) -> Any:
        """Restore what :meth:`state_dict` returned."""


class TrainingSet(Protocol):
    """The clips to train on.

    Attributes:
        group: number of neighbouring clips that stay together in a batch.
    """

    group: int

    def __len__(self) -> int:
        """Return the number of clips."""

    def __getitem__(self, index: int, /) -> Any:
        """Read a clip."""

    def set_epoch(self, seed: int, /) -> None:
        """Choose what is drawn at random in the coming epoch, as a function of ``seed`` alone."""

    def end_epoch(self) -> None:
        """Called after each epoch, such as to report unreadable files."""
