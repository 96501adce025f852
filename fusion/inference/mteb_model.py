"""Run a model on the retrieval tasks of mteb: any of text, sound and picture on each side.

mteb (arXiv:2210.07316) decodes films itself. Here its data sets are read undecoded, and a film goes
through the same reader and the same features as in training. Needs the extra ``mteb``.

Shapes: N items, E embedding width.
"""

from __future__ import annotations

import functools
import importlib
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusion.inference.embedder import Embedder
from fusion.inference.loading import load
from fusion.modalities import letters_of
from fusion.words import number_of

logger = logging.getLogger(__name__)

PICTURE = "image"  # of mteb: a film of one picture
BATCH = 32
INSTALL = "mteb is not installed; install it by: pip install 'fusion[mteb]'"


class MtebModel:
    """A model as mteb calls it, for ``mteb.evaluate``.

    A row of a data set is embedded in the combination of all that it has and the model embeds. A
    row that the model cannot embed, such as a caption without a known word, gets a vector of zeros;
    a warning says how many do.

    Args:
        model: what :func:`fusion.load` returns, or takes.
        name: of the model in mteb's results; None: that of the folder.
        device: see :func:`fusion.load`.
        options: others of :func:`fusion.load`.

    Raises:
        ValueError: mteb is not installed, or there is no such model.
    """

    def __init__(
        self,
        model: Embedder | str | Path,
        name: str | None = None,
        device: str | None = None,
        **options: Any,
    ) -> None:
        _import("mteb")
        self.model: Any = model
        if isinstance(model, str | Path):
            self.model = load(model, device, **options)
            name = name or Path(str(model).rpartition(":")[2]).name
        self.name = name or "model"
        self.modalities = list(letters_of(self.model.modalities).values())

    @functools.cached_property
    def mteb_model_meta(self) -> Any:
        """What mteb wants to know of a model; its revision is the digest of the weights."""
        meta = _import("mteb.models.model_meta")
        modalities = [*self.modalities, *([PICTURE] if "video" in self.modalities else [])]
        network, ways = self.model.network, meta.ScoringFunction
        is_dot = getattr(network, "similarity", "cosine") == "dot"
        facts = {
            "name": f"fusion/{self.name}",
            "revision": self.model.digest,
            "modalities": modalities,
            "n_parameters": sum(p.numel() for p in network.parameters()),
            "framework": ["PyTorch"],
            "open_weights": False,
            "use_instructions": False,
            "similarity_fn_name": ways.DOT_PRODUCT if is_dot else ways.COSINE,
        }
        return meta.ModelMeta.create_empty(overwrites=facts)

    def encode(
        self,
        inputs: Any,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: Any = None,
        **options: Any,
    ) -> NDArray[np.float32]:
        """Embed the rows of a data set of mteb: (N, E).

        Args:
            inputs: a loader of a ``datasets.Dataset``.
            task_metadata: not read; so are the four below.
            hf_split: of the data set.
            hf_subset: of the data set.
            prompt_type: query or document.
            options: ``batch_size`` alone is read.

        Raises:
            ValueError: the model embeds nothing that the data set has.
        """
        size, rows = options.get("batch_size", BATCH), _undecoded(inputs.dataset)
        columns = [m for m in (*self.modalities, PICTURE) if m in rows.column_names]
        if not columns:
            raise ValueError(
                f"{self.name} embeds {', '.join(self.modalities)}, and this data set has"
                f" {', '.join(rows.column_names)}; choose a task that has one of them"
            )
        made: list[Tensor | None] = []
        for first in range(0, len(rows), size):
            batch = rows.select(range(first, min(first + size, len(rows))))
            with tempfile.TemporaryDirectory(prefix="fusion-") as folder:
                items = [_item(row, columns, Path(folder)) for row in batch]
                made += self._embed(items)
        return _stack(made)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Compare embeddings (N, E) and (M, E): (N, M)."""
        x, y = (torch.as_tensor(rows).float() for rows in (embeddings1, embeddings2))
        compared: Tensor = self.model.similarity(x, y)
        return compared

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Compare each of (N, E) with its own of (N, E): (N,)."""
        pairs = zip(torch.as_tensor(embeddings1), torch.as_tensor(embeddings2), strict=True)
        return torch.stack([self.model.similarity(x.float(), y.float()) for x, y in pairs])

    def _embed(self, items: Sequence[dict[str, Any]]) -> Iterator[Tensor | None]:
        """Embed items together; if one cannot be, each by itself."""
        try:
            yield from self.model.encode(list(items))
        except ValueError:
            for item in items:
                try:
                    yield self.model.encode(item)
                except ValueError as error:
                    logger.info("a row is left out: %s", error)
                    yield None


def _undecoded(rows: Any) -> Any:
    """Let a data set give the files of its films and sounds as they are."""
    datasets = _import("datasets")
    for name, feature in rows.features.items():
        if isinstance(feature, datasets.Video | datasets.Audio):
            rows = rows.cast_column(name, type(feature)(decode=False))
    return rows


def _item(row: Mapping[str, Any], columns: Sequence[str], folder: Path) -> dict[str, Any]:
    """Make of a row what ``encode`` takes; files that are in the data set go to ``folder``."""
    item = {}
    for name in columns:
        if row[name] is not None:
            item["video" if name == PICTURE else name] = _value(row[name], folder)
    return item


def _value(value: Any, folder: Path) -> Any:
    if not isinstance(value, Mapping):
        return value  # a text or a picture
    if value.get("array") is not None:
        return np.asarray(value["array"], np.float32), value["sampling_rate"]
    if value.get("bytes") is None:
        return Path(value["path"])
    file = folder / f"{sum(1 for _ in folder.iterdir())}{Path(value.get('path') or '').suffix}"
    file.write_bytes(value["bytes"])
    return file


def _stack(made: Sequence[Tensor | None]) -> NDArray[np.float32]:
    known = next((one for one in made if one is not None), None)
    if known is None:
        raise ValueError(f"the model embeds none of {number_of(len(made), 'row')} of this data set")
    if lost := sum(one is None for one in made):
        logger.warning(
            "%d of %s cannot be embedded and count as zeros", lost, number_of(len(made), "row")
        )
    rows = [torch.zeros_like(known) if one is None else one for one in made]
    return torch.stack(rows).numpy()


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ValueError(INSTALL) from None
