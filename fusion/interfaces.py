"""The contracts of parts: what training, evaluation and inference need of them.

A config names a part of one's own by its import path (``name: my_package.my_module:MyLoss``). It is
a class or a function, called with the other keys of its section. A data set is a
:class:`fusion.data.datasets.dataset.Source`, which has its contract.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from fusion.tokens import Batch, Tokens

Named = Mapping[str, Tensor]
Embed = Callable[[Batch], Named]  # calls the model; gives named (B, …) outputs
Parts = dict[str, Tensor]  # named scalars, for the log
Result = tuple[Tensor, Parts]  # the loss, a scalar, and its terms


class Model(Protocol):
    """A model (``model``), an ``nn.Module`` built with the keys of its section.

    It may have ``similarity``, ``"cosine"`` or ``"dot"`` (cosine if it has none), and ``embeds_any
    = True`` if it also embeds combinations that are not configured.
    """

    modalities: Collection[str]  # names, such as text and video
    combinations: Collection[str]  # in letters, such as t, v and tv

    def __call__(
        self,
        inputs: Mapping[str, Tokens],
        combinations: Iterable[str] | None = None,
        skip_incomplete: bool = False,
        seeds: Tensor | None = None,
    ) -> Named:
        """Embed B clips: for each combination (all, if None) (B, E).

        ``inputs`` may have modalities that the model does not read. ``skip_incomplete``: only clips
        with all modalities of a combination count. ``seeds`` (B,) are for random numbers, so that a
        clip does not depend on its batch.
        """


class Encoder(Protocol):
    """An encoder of a modality (``model.modalities.NAME.encoder``), an ``nn.Module``."""

    in_dim: int  # width of the features
    out_dim: int  # width of the tokens

    def __call__(self, features: Tokens, /) -> Tokens:
        """Make tokens of the features of B clips; no tokens where there are no features."""


class TextEncoder(Protocol):
    """A text encoder (``text_encoder``).

    One that learns has ``learns = True`` and a class method ``train(sentences, seed, ...)`` that
    makes it. One with a state writes it by ``save(folder)`` and reads it by the class method
    ``load(folder)``; any other is built again from the config. ``unknown_words(sentence)`` may list
    the words that it leaves out; training counts them before it begins.
    """

    def __call__(self, sentence: str, /) -> Tensor:
        """Encode a sentence: (L, D) float32, L = 0 if it has nothing that is known."""


class Loss(Protocol):
    """A loss (``loss``), called with ``modalities``, names in the model's order, and its section.

    For retrieval it has ``combinations``, those that it reads. A loss without state derives
    from this class and defines ``__call__``; one with state all methods, see :class:`.MCNLoss`.

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
    """The clips to train on.

    ``group`` neighbouring clips follow one another in training; a list: so many of each group.
    """

    group: int | Sequence[int]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...

    def begin_epoch(self, number: int, /) -> None:
        """Called before each epoch, the first of which is 0."""

    def set_epoch(self, seed: int, /) -> None:
        """Choose what is drawn at random in the coming epoch, as a function of ``seed`` alone."""

    def end_epoch(self) -> None:
        """Called after each epoch, such as to report unreadable files."""
