"""What an index of films needs of a model, whatever kind of model it is.

Shapes: N clips, E embedding width.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusion.data.datasets.dataset import collate
from fusion.inference.clips import fill
from fusion.inference.items import Item
from fusion.modalities import letters_of

if TYPE_CHECKING:
    from fusion.inference.model import Model

BATCH = 64  # clips embedded at a time
FEW = 8  # those of a model that reads frames, which need more memory
CUT, UNKNOWN = "cut", "unknown"  # notes on texts: too long for the model; without a known word


class Embedded(NamedTuple):
    """The clips of a film, embedded in every combination of a model."""

    vectors: dict[str, NDArray[np.float32]]  # (N, E) by combination; zeros where a clip lacks it
    has: list[str]  # letters of the modalities of each clip
    notes: Counter[str]  # how many texts are CUT or UNKNOWN


class Embedder(Protocol):
    """Embeds films and questions; :class:`fusion.Model` is one.

    Attributes:
        modalities: names of what it embeds.
        combinations: that it embeds, such as ``va``.
    """

    modalities: tuple[str, ...]
    combinations: tuple[str, ...]

    @property
    def digest(self) -> str:
        """A name that changes with the weights; an index knows its model by it."""

    @property
    def longest(self) -> float:
        """Seconds of the longest clip that is not cut off; infinity if nothing limits it."""

    def seconds(self, film: Path) -> float:
        """Return for how long a film has picture or sound.

        Raises:
            MediaError: it cannot be read.
        """

    def embed_film(self, film: Path, clips: Sequence[tuple[float, float, str]]) -> Embedded:
        """Embed clips of a film, each a start, an end and a text, which may be empty.

        Raises:
            MediaError: the film cannot be read.
        """

    def encode(
        self,
        inputs: Any,
        combination: str | None = None,
        *,
        start: float = 0.0,
        end: float | None = None,
    ) -> Any:
        """Embed what a user gives, see :meth:`fusion.Model.encode`."""


def embed_clips(model: Model, film: Path, clips: Sequence[tuple[float, float, str]]) -> Embedded:
    """Do what :meth:`Embedder.embed_film` says, with a trained model."""
    notes, item = Counter[str](), whole_film(model, film)
    letters, has = letters_of(model.modalities), list[str]()
    parts: dict[str, list[Tensor]] = {combination: [] for combination in model.combinations}
    size = FEW if model.maker.reads_frames else BATCH
    for first in range(0, len(clips), size):
        made = fill([_make(model, item, *clip, notes) for clip in clips[first : first + size]])
        for clip in made:
            has.append("".join(x for x, name in letters.items() if len(clip.get(name, ()))))
        batch = collate(made).to(model.device)
        with torch.no_grad():
            outputs = model.network(batch.inputs, model.combinations)
        for combination, rows in outputs.items():
            parts[combination].append(model.finish(rows))
    vectors = {}
    for combination, blocks in parts.items():
        there = np.array([set(combination) <= set(its) for its in has], np.float32)
        vectors[combination] = torch.cat(blocks).numpy() * there[:, None]
    return Embedded(vectors, has, notes)


def whole_film(model: Model, film: Path) -> Item:
    """Make an item of a film, of which every modality that is in it counts."""
    return Item(str(film), dict.fromkeys(model.maker.of_films, film), whole=True)


def _make(
    model: Model, item: Item, start: float, end: float, text: str, notes: Counter[str]
) -> dict[str, Any]:
    """Make the input of a clip; without its text, if the model cannot read it."""
    whole = {"text": text} if text and "text" in model.modalities else {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            clip = model.maker.clip(Item(item.name, item.parts | whole), start, end)
        except ValueError:  # of the text, or of the film, which then fails again
            if not whole:
                raise
            clip = model.maker.clip(Item(item.name, item.parts), start, end)
            notes[UNKNOWN] += 1
    long = [warning for warning in caught if "longer than the model takes" in str(warning.message)]
    notes.update([CUT] if long else [])
    for warning in caught:
        if warning not in long:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    return {"id": item.name, **clip}
