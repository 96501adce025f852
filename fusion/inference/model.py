"""A trained model that embeds what a user gives: texts, films, sounds, pictures, or any of them.

Shapes: N items, E embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from fusion.data.datasets.dataset import collate
from fusion.extract.weights import name_weights
from fusion.inference.card import without_paths
from fusion.inference.clips import ClipMaker, fill, input_widths
from fusion.inference.embedder import Embedded, embed_clips, whole_film
from fusion.inference.items import Inputs
from fusion.inference.rows import Row, check_wishes, cut
from fusion.inference.saving import publish, save_model
from fusion.modalities import members, spell


class Windows(NamedTuple):
    """The windows of a film."""

    embeddings: Tensor  # (N, E)
    times: Tensor  # (N, 2) float64: first and last second of each


class Model:
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
        if (device := torch.device(device)) == getattr(self, "device", None):
            return self
        self.device = device
        self.network.to(device)
        specs: Mapping[str, Any] = self.config["model"].get("modalities", {})
        about = (self.text_encoder, self.recipe, device, self._weights)
        self.maker = ClipMaker(self.modalities, specs, input_widths(self.network, specs), *about)
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
            float32 on the CPU: (E,) of one input, (N, E) of a list; of unit length, unless the
            model compares by dot product. With ``windows``, :class:`Windows`, or a list of them.

        Raises:
            ValueError: an argument cannot be used, or an input has nothing to embed; one line.
        """
        check_wishes(combination, start, end, windows, step, batch_size)
        self.to(device or self.device)
        with Inputs(self.modalities, self.maker.of_films) as reader:
            items, alone = reader.items(inputs)
            rows, counts = cut(items, self.maker.seconds, start, end, windows, step)
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

    @property
    def digest(self) -> str:
        """A name of the weights, see :func:`fusion.extract.weights.name_weights`."""
        return name_weights(self.network)

    @property
    def longest(self) -> float:
        """Seconds of the longest clip that is not cut off; infinity if nothing limits it."""
        return self.maker.longest

    def seconds(self, film: Path) -> float:
        """Return for how long a film has picture or sound."""
        return self.maker.seconds(whole_film(self, film))

    def embed_film(self, film: Path, clips: Sequence[tuple[float, float, str]]) -> Embedded:
        """Embed clips of a film in every combination, see :class:`.embedder.Embedder`."""
        return embed_clips(self, film, clips)

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        push_to_hub: bool = False,
        repo_id: str | None = None,
        **options: Any,
    ) -> str | None:
        """Write what :func:`fusion.load` reads, and a model card.

        Of an earlier model nothing remains. With ``push_to_hub`` it is also published, as
        ``repo_id`` or by the folder's name; see :meth:`push_to_hub` for ``options`` and what is
        returned.
        """
        folder = Path(save_directory).absolute()
        self._save(folder, folder.name, self.config, self.recipe)
        return self.push_to_hub(repo_id or folder.name, **options) if push_to_hub else None

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        branch: str | None = None,
        commit_message: str = "Publish a model of fusion",
        **options: Any,
    ) -> str:
        """Publish the model on the Hugging Face hub, without absolute paths of its config.

        Args:
            repo_id: name there, such as ``me/mine``.
            private: only for its owners; None: as the hub has it for them.
            token: of an account; None: the one that is logged in.
            branch: of the repository; None: the main one.
            commit_message: what the hub shows of the change.
            options: others of ``huggingface_hub.HfApi.upload_folder``.

        Returns:
            The address of the commit.
        """
        config, recipe = without_paths(self.config), without_paths(self.recipe)
        about = {"revision": branch, "commit_message": commit_message, **options}
        save = partial(self._save, config=config, recipe=recipe)
        return publish(save, repo_id, private, token, about)

    @classmethod
    def from_pretrained(cls, name: str | Path, **options: Any) -> Model:
        """Do the same as :func:`fusion.load`, with the same arguments."""
        from fusion.inference.loading import load  # which makes models

        model: Model = load(name, **options)
        return model

    def _save(self, folder: Path, name: str, config: Any, recipe: Any) -> None:
        parts = (self.network, self.text_encoder, config, recipe, self.facts)
        save_model(folder, name, *parts, self.modalities, self.combinations)

    def _embed(
        self, rows: Sequence[Row], combination: str | None, batch_size: int, progress: bool
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

    def _chosen(self, row: Row, clip: Mapping[str, Any], combination: str | None) -> str:
        """Return the combination to embed; ValueError: the item has nothing of it."""
        there = [m for m in self.modalities if len(clip.get(m, ()))]
        if not there:
            raise ValueError(f"{row.item.name} has nothing to embed{row}")
        names = members(combination, self.modalities) if combination is not None else tuple(there)
        if not set(names) & set(there):
            has = ", ".join(there)
            raise ValueError(
                f"{row.item.name} has nothing of the combination {combination!r}{row}; it has {has}"
            )
        chosen = spell(members(spell(names), self.modalities))
        if chosen not in self.combinations and not getattr(self.network, "embeds_any", False):
            raise ValueError(
                f"the model does not embed {chosen!r}; choose a combination of"
                f" {', '.join(self.combinations)}"
            )
        return chosen
