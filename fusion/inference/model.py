"""A trained model that embeds what a user gives: texts, films, sounds, pictures, or any of them.

Shapes: N items, E embedding width.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from huggingface_hub import ModelHubMixin
from torch import Tensor, nn
from tqdm import tqdm

from fusion.checkpoint import load_checkpoint, save_checkpoint
from fusion.data.datasets.dataset import collate
from fusion.inference.card import read_facts, write_card
from fusion.inference.clips import ClipMaker, fill
from fusion.inference.items import Inputs, Item
from fusion.inference.loading import find_model, find_recipe
from fusion.modalities import members, spell


class Windows(NamedTuple):
    """The windows of a film."""

    embeddings: Tensor  # (N, E)
    times: Tensor  # (N, 2) float64: first and last second of each


@dataclasses.dataclass
class _Row:
    """What is embedded as one row: an item, or a window of it."""

    item: Item
    start: float
    end: float


class Model(ModelHubMixin):
    """A trained model with its text encoder and the recipe of its features.

    :func:`fusion.load` makes one.

    Args:
        network: maps ``{modality: Tokens}`` and combinations to ``{combination: (B, E)}``.
        text_encoder: maps a text to (L, D); None: the model reads no texts.
        config: that the model was trained with.
        recipe: how its features are made, see :meth:`.Source.recipe`; None: not known, so films
            cannot be embedded, but finished features can.
        device: where the network computes; None: the first GPU if there is one, else the CPU.
        weights: see :class:`.features.FilmFeatures`.
        facts: its results and its cost, see :func:`.card.read_facts`.

    Attributes:
        modalities: names of what it embeds, such as text, video and audio.
        combinations: those that it was trained with, such as ``va``.
        maker: makes the network's input of what is given.
    """

    def __init__(
        self,
        network: nn.Module,
        text_encoder: Any,
        config: Mapping[str, Any],
        recipe: Mapping[str, Any] | None,
        device: str | torch.device | None = None,
        weights: Mapping[str, str | Path] | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self._hub_mixin_config = None  # config.yaml has it all
        self.facts = dict(facts or {})
        self.network, self.text_encoder = network.eval(), text_encoder
        self.config, self.recipe = dict(config), recipe
        self.modalities: tuple[str, ...] = tuple(network.modalities)  # type: ignore[arg-type]
        self.combinations: tuple[str, ...] = tuple(network.combinations)  # type: ignore[arg-type]
        self._similarity: str = getattr(network, "similarity", "cosine")
        self._weights = weights
        self.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))

    def to(self, device: str | torch.device) -> Model:
        """Move the network to a device."""
        self.device = torch.device(device)
        self.network.to(self.device)
        self.maker = ClipMaker(
            self.modalities,
            self.config["model"].get("modalities", {}),
            self.text_encoder,
            self.recipe,
            self.device,
            self._weights,
        )
        return self

    def encode(
        self,
        inputs: Any,
        combination: str | None = None,
        *,
        start: float = 0.0,
        end: float | None = None,
        windows: float | None = None,
        step: float | None = None,
        batch_size: int = 64,
        device: str | torch.device | None = None,
        progress: bool = False,
    ) -> Any:
        """Embed one input or a list of inputs; no gradient is kept.

        Args:
            inputs: a text; the path or URL of a media file; a picture of PIL; or a dict by
                modality, such as ``{"video": "a.mp4", "audio": "b.wav", "text": "a dog"}``, whose
                values may also be arrays with their rate, ``(frames, 25.0)`` with (T, H, W, 3)
                uint8 and ``(samples, 16000)`` with (S,) floats, or finished tokens (L, D). A list
                of these, or a dict of lists, gives an embedding of each. Of a media file by itself
                both picture and sound are used.
            combination: what to embed, such as ``"va"``; None: all that each input has. A modality
                that an input lacks is replaced as in training.
            start: second of the films where the clip begins.
            end: second where it ends; None: the end of the film.
            windows: embed a film in windows of so many seconds instead of as one clip.
            step: seconds from the start of a window to that of the next; None: ``windows``.
            batch_size: inputs that the network takes at a time.
            device: moves the model there first.
            progress: show a progress bar.

        Returns:
            float32 on the CPU: (E,) of one input, (N, E) of a list, of unit length, unless the
            model compares by dot product (``model.similarity``), where the lengths count. With
            ``windows``, :class:`Windows` of one film, or a list of them.

        Raises:
            ValueError: an input cannot be used, has nothing of the combination, or no word of a
                text is known; one line.
        """
        if device is not None:
            self.to(device)
        self._check(combination, start, end, windows, step)
        with Inputs(self.modalities, self.maker.of_films) as reader:
            items, alone = reader.items(inputs)
            rows, counts = self._rows(items, start, end, windows, step)
            embeddings = self._embed(rows, combination, batch_size, progress)
        if windows is None:
            return embeddings[0] if alone else embeddings
        times = torch.tensor([[row.start, row.end] for row in rows], dtype=torch.float64)
        parts = list(map(Windows, embeddings.split(counts), times.split(counts)))
        return parts[0] if alone else parts

    def finish(self, embeddings: Tensor) -> Tensor:
        """Bring outputs of the network (N, E) to the CPU, and to unit length for cosines."""
        embeddings = embeddings.float().cpu()
        return F.normalize(embeddings, dim=-1) if self._similarity == "cosine" else embeddings

    def similarity(self, x: Tensor, y: Tensor) -> Tensor:
        """Compare embeddings (N, E) and (M, E) as in training and evaluation: (N, M).

        A single embedding (E,) gives (M,), two of them a number.
        """
        if self._similarity == "cosine":
            x, y = F.normalize(x, dim=-1), F.normalize(y, dim=-1)
        return x @ y.T if y.ndim > 1 else x @ y

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write what :func:`fusion.load` reads, and a model card; called by save_pretrained."""
        save_checkpoint(save_directory, self.network, self.config, self.text_encoder, self.recipe)
        for file, content in self.facts.items():
            (save_directory / file).write_text(json.dumps(content, indent=1), encoding="utf-8")
        about = (self.config, self.recipe, self.facts, self.modalities, self.combinations)
        write_card(save_directory, save_directory.name, *about)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, trust: bool = False, **_: Any) -> Model:
        """Called by from_pretrained, which does the same as :func:`fusion.load`."""
        return load(model_id, trust=trust)

    def _check(
        self,
        combination: Any,
        start: float,
        end: float | None,
        windows: float | None,
        step: float | None,
    ) -> None:
        if combination is not None and not isinstance(combination, str):
            raise ValueError(f"a combination is one string, such as 'va'; got {combination!r}")
        if not 0 <= start < (math.inf if end is None else end):
            raise ValueError(f"start must be before end, in seconds from 0 on; got {start}, {end}")
        if step is not None and windows is None:
            raise ValueError("step is the distance of windows; give windows=SECONDS too")
        if windows is not None and not (windows > 0 and (step is None or 0 < step <= windows)):
            raise ValueError(
                f"windows must be above 0, and step above 0 and at most as long; got {windows} and"
                f" {step}"
            )

    def _rows(
        self,
        items: Sequence[Item],
        start: float,
        end: float | None,
        windows: float | None,
        step: float | None,
    ) -> tuple[list[_Row], list[int]]:
        """Cut items into windows; return the rows, and how many each item has."""
        last = math.inf if end is None else end
        if windows is None:
            return [_Row(item, start, last) for item in items], [1] * len(items)
        rows, counts = [], []
        for item in items:
            stop = min(last, self.maker.seconds(item))
            if stop <= start:
                raise ValueError(f"{item.name} has neither picture nor sound after {start:g} s")
            number = 1 + max(0, math.ceil((stop - start - windows) / (step or windows) - 1e-9))
            first = [start + i * (step or windows) for i in range(number)]
            rows += [_Row(item, begin, min(begin + windows, stop)) for begin in first]
            counts.append(number)
        return rows, counts

    def _embed(
        self, rows: Sequence[_Row], combination: str | None, batch_size: int, progress: bool
    ) -> Tensor:
        result: list[Tensor | None] = [None] * len(rows)
        bar = tqdm(total=len(rows), unit="clip", desc="encoding", disable=not progress)
        for first in range(0, len(rows), batch_size):
            part = rows[first : first + batch_size]
            self.maker.read_texts([row.item for row in part])
            clips = [
                {"id": row.item.name, **self.maker.clip(row.item, row.start, row.end)}
                for row in part
            ]
            groups: dict[str, list[int]] = {}
            for place, (row, clip) in enumerate(zip(part, clips, strict=True)):
                groups.setdefault(self._chosen(row, clip, combination), []).append(place)
            for chosen, places in groups.items():
                batch = collate(fill([clips[place] for place in places])).to(self.device)
                with torch.no_grad():
                    made = self.finish(self.network(batch.inputs, [chosen])[chosen])
                for place, embedding in zip(places, made, strict=True):
                    result[first + place] = embedding
            bar.update(len(part))
        bar.close()
        return torch.stack([one for one in result if one is not None])

    def _chosen(self, row: _Row, clip: Mapping[str, Any], combination: str | None) -> str:
        """Return the combination to embed; ValueError: the item has nothing of it."""
        there = [m for m in self.modalities if len(clip.get(m, ()))]
        if not there:
            raise ValueError(f"{row.item.name} has nothing to embed{_window(row)}")
        names = members(combination, self.modalities) if combination else tuple(there)
        if not set(names) & set(there):
            has = ", ".join(there)
            raise ValueError(
                f"{row.item.name} has nothing of the combination {combination!r}{_window(row)}; it"
                f" has {has}"
            )
        chosen = spell(members(spell(names), self.modalities))
        if chosen not in self.combinations and not getattr(self.network, "embeds_any", False):
            raise ValueError(
                f"the model does not embed {chosen!r}; choose a combination of"
                f" {', '.join(self.combinations)}"
            )
        return chosen


def _window(row: _Row) -> str:
    if not row.start and math.isinf(row.end):
        return ""
    return f" from {row.start:g} s" + ("" if math.isinf(row.end) else f" to {row.end:g} s")


def load(
    name: str | Path,
    device: str | torch.device | None = None,
    weights: Mapping[str, str | Path] | None = None,
    trust: bool = False,
) -> Model:
    """Load a trained model.

    Args:
        name: the folder of a run, of which the best checkpoint is taken; the folder of a
            checkpoint, such as ``Model.save_pretrained`` writes; or a name on the Hugging Face hub.
        device: where it computes; None: the first GPU if there is one, else the CPU.
        weights: files of weights by field, ``2d``, ``3d``, ``sound``, of the networks that make
            its features, where they cannot be found: see :class:`.features.FilmFeatures`; and
            ``text``, where its language model or its word vectors are now.
        trust: import the parts that its config names by import path; this runs their code.

    Raises:
        ValueError: there is no such model, or it cannot be read.
    """
    folder = find_model(name)
    network, text_encoder, config = load_checkpoint(folder, trust, (weights or {}).get("text"))
    recipe = find_recipe(folder, config)
    return Model(network, text_encoder, config, recipe, device, weights, read_facts(folder))
