"""A pre-trained model of picture and text, such as CLIP or SigLIP, used without any training.

It embeds texts and pictures, each by itself. Of a film it sees one picture a second; a clip is the
mean of the unit vectors of its pictures, scaled to unit length (late average; "mean pooling" in
CLIP4Clip, arXiv:2104.08860).

Shapes: T pictures of a film, N items or clips, E embedding width.
"""

from __future__ import annotations

import functools
import itertools
import logging
import math
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from fusion.data.media.decode import MediaError, open_media
from fusion.data.media.film import Film
from fusion.data.media.pictures import Sampling, seen_size
from fusion.data.media.streams import choose
from fusion.extract.weights import name_weights
from fusion.inference.clip_files import features_of, open_model
from fusion.inference.embedder import CUT, Embedded
from fusion.inference.items import Inputs, Item
from fusion.inference.model import Windows
from fusion.inference.rows import Row, check_wishes, cut

logger = logging.getLogger(__name__)

TEXT, VIDEO = "text", "video"
BATCH = 16  # pictures, or texts, that the network takes at a time
LARGEST = 1080  # pixels of the shorter side; larger pictures are scaled down before all else
KEPT = 16  # films whose pictures' embeddings stay in memory


class ClipModel:
    """Embeds texts and pictures by a model of transformers; an :class:`.Embedder`.

    ``fusion.load("clip:FOLDER")`` makes one.

    Args:
        name: see :func:`.clip_files.open_model`.
        device: where the network computes; None: the first GPU if there is one, else the CPU.
        frames_per_second: pictures of a film that are embedded.
        options: of a download from the hub.

    Attributes:
        modalities: text and video.
        combinations: ``t`` and ``v``; no model of this kind embeds both as one.
        longest: infinity; a clip of any length is embedded whole.

    Raises:
        ValueError: the model cannot be loaded, or does not embed both into one space.
    """

    modalities: tuple[str, ...] = (TEXT, VIDEO)
    combinations: tuple[str, ...] = ("t", "v")
    longest = math.inf

    def __init__(
        self,
        name: str,
        device: str | torch.device | None = None,
        frames_per_second: float = 1.0,
        **options: Any,
    ) -> None:
        self.name, self.frames_per_second = str(name), frames_per_second
        self.network, self._tokenizer, self._pictures, self._most, self._whole = open_model(
            self.name, **options
        )
        self._films: OrderedDict[tuple[str, int, int], tuple[Tensor, float]] = OrderedDict()
        self.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._try_out()

    def to(self, device: str | torch.device) -> ClipModel:
        """Move the network to a device."""
        self.device = torch.device(device)
        self.network.to(self.device)
        return self

    @functools.cached_property
    def digest(self) -> str:
        """Names the weights, and the pictures per second if they are not 1."""
        rate = "" if self.frames_per_second == 1 else f"@{self.frames_per_second:g}"
        return name_weights(self.network) + rate

    def seconds(self, film: Path) -> float:
        """Return for how long a film has pictures; 0 if it has none."""
        return self._embed_pictures_of(film)[1]

    def embed_film(self, film: Path, clips: Sequence[tuple[float, float, str]]) -> Embedded:
        """Embed clips of a film, given by start, end and text; an empty text is none.

        Raises:
            MediaError: the film cannot be read, or has no picture.
        """
        pictures, _ = self._embed_pictures_of(film)
        seen = torch.stack([self._mean(pictures, start, end) for start, end, _ in clips])
        spoken = [place for place, clip in enumerate(clips) if clip[2].strip()]
        said, long = torch.zeros_like(seen), [False] * len(spoken)
        if spoken:
            said[spoken], long = self._embed_texts([clips[place][2] for place in spoken])
        has = ["tv" if place in set(spoken) else "v" for place in range(len(clips))]
        notes = Counter([CUT] * sum(long))
        return Embedded({"t": said.numpy(), "v": seen.numpy()}, has, notes)

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
        """Embed texts, films or pictures, as :meth:`fusion.Model.encode` does.

        Raises:
            ValueError: an input cannot be used, or has both text and picture; one line.
        """
        check_wishes(combination, start, end, windows, step, batch_size)
        if combination not in (None, *self.combinations):
            raise ValueError(
                f"{self.name} does not embed {combination!r}; choose a combination of"
                f" {', '.join(self.combinations)}"
            )
        self.to(device or self.device)
        with Inputs(self.modalities, (VIDEO,)) as reader:
            items, alone = reader.items(inputs)
            rows, counts = cut(items, self._seconds_of, start, end, windows, step)
            embeddings = self._embed(rows, combination, batch_size, progress)
        if windows is None:
            return embeddings[0] if alone else embeddings
        times = torch.tensor([[row.start, row.end] for row in rows], dtype=torch.float64)
        parts = list(map(Windows, embeddings.split(counts), times.split(counts)))
        return parts[0] if alone else parts

    def similarity(self, x: Tensor, y: Tensor) -> Tensor:
        """Compare embeddings (N, E) and (M, E) by cosine: (N, M); see :class:`fusion.Model`."""
        x, y = F.normalize(x, dim=-1), F.normalize(y, dim=-1)
        return x @ y.T if y.ndim > 1 else x @ y

    def _try_out(self) -> None:
        """Embed a text and a picture; ValueError: they do not come into one space."""
        try:
            text, _ = self._embed_texts(["a"])
            picture = self._embed_pictures([np.zeros((64, 64, 3), np.uint8)])
        except (ValueError, TypeError, RuntimeError, IndexError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{self.name} cannot embed a text and a picture ({reason})") from None
        if text.shape != picture.shape:
            raise ValueError(
                f"{self.name} embeds a text as {text.shape[1]} numbers and a picture as"
                f" {picture.shape[1]}; choose a model that was trained to compare them"
            )

    def _seconds_of(self, item: Item) -> float:
        film = item.parts.get(VIDEO)
        return self.seconds(film) if isinstance(film, Path) else 0.0

    def _embed(
        self, rows: Sequence[Row], combination: str | None, batch_size: int, progress: bool
    ) -> Tensor:
        made: list[Tensor | None] = [None] * len(rows)
        bar = tqdm(total=len(rows), unit="item", desc="encoding", disable=not progress)
        chosen = [self._chosen(row, combination) for row in rows]
        asked = [place for place, name in enumerate(chosen) if name == TEXT]
        for first in range(0, len(asked), batch_size):
            places = asked[first : first + batch_size]
            texts = [str(rows[place].item.parts[TEXT]) for place in places]
            found, long = self._embed_texts(texts)
            for place, text, vector, is_cut in zip(places, texts, found, long, strict=True):
                made[place] = vector
                if is_cut:
                    logger.warning("%r is cut off after %d tokens", text, self._most)
            bar.update(len(places))
        for place, (row, name) in enumerate(zip(rows, chosen, strict=True)):
            if name == VIDEO:
                pictures, seconds = self._embed_pictures_of(Path(str(row.item.parts[VIDEO])))
                if row.start >= seconds:
                    raise ValueError(f"{row.item.name} has nothing to embed{row}")
                made[place] = self._mean(pictures, row.start, row.end)
                bar.update()
        bar.close()
        return torch.stack([one for one in made if one is not None])

    def _chosen(self, row: Row, combination: str | None) -> str:
        """Return the modality to embed; ValueError: the item has not exactly one."""
        parts = {name: part for name, part in row.item.parts.items() if str(part).strip()}
        if any(isinstance(part, Tensor) for part in parts.values()):
            raise ValueError(
                f"{row.item.name}: {self.name} takes no finished tokens; give a text or a file"
            )
        if combination is not None:
            parts = {name: part for name, part in parts.items() if name[0] == combination}
        if len(parts) == 1:
            return next(iter(parts))
        if parts:
            raise ValueError(
                f"{row.item.name} has text and picture, and {self.name} embeds each by itself; give"
                " one of them"
            )
        has = ", ".join(row.item.parts)
        wanted = f" of the combination {combination!r}; it has {has}" if combination else ""
        raise ValueError(f"{row.item.name} has nothing to embed{wanted}")

    @torch.inference_mode()
    def _embed_texts(self, texts: Sequence[str]) -> tuple[Tensor, list[bool]]:
        """Return unit vectors (N, E) of texts, and which of them are cut off."""
        parts, most = [], self._most
        lengths = [len(ids) for ids in self._tokenizer(list(texts), verbose=False)["input_ids"]]
        for first in range(0, len(texts), BATCH):
            given = self._tokenizer(
                list(texts[first : first + BATCH]),
                padding="max_length" if self._whole else True,
                truncation=True,
                max_length=most,
                return_tensors="pt",
            )
            made = self.network.get_text_features(**given.to(self.device))
            parts.append(F.normalize(features_of(made), dim=-1).cpu())
        return torch.cat(parts).clone(), [length > most for length in lengths]

    @torch.inference_mode()
    def _embed_pictures(self, pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Return unit vectors (T, E) of (H, W, 3) pictures."""
        given = self._pictures(
            list(pictures), return_tensors="pt", input_data_format="channels_last"
        )
        made = self.network.get_image_features(**given.to(self.device))
        return F.normalize(features_of(made), dim=-1).cpu().clone()

    def _embed_pictures_of(self, path: Path) -> tuple[Tensor, float]:
        """Return the unit vectors (T, E) of a film's pictures, and its seconds; kept in memory."""
        state = path.stat()
        key = (str(path.resolve()), state.st_size, state.st_mtime_ns)
        found = self._films.pop(key, None) or self._read(path)
        self._films[key] = found  # as the latest
        while len(self._films) > KEPT:
            self._films.popitem(last=False)
        return found

    def _read(self, path: Path) -> tuple[Tensor, float]:
        side = _shorter_side(path)
        film = Film(path, {"2d": Sampling(self.frames_per_second, side)}, audio=False)
        pictures: Iterator[Any] = (one for piece in film.pieces() for one in piece.data)
        parts = []
        while batch := list(itertools.islice(pictures, BATCH)):
            parts.append(self._embed_pictures(batch))
        if not parts:
            raise MediaError(f"{path}: none of its pictures can be decoded")
        return torch.cat(parts), film.seconds

    def _mean(self, pictures: Tensor, start: float, end: float) -> Tensor:
        """Average the pictures (T, E) of a clip; of one between two pictures, take the nearest."""
        rate, last = self.frames_per_second, len(pictures) - 1
        first = math.ceil(round(start * rate, 6))
        stop = len(pictures) if math.isinf(end) else math.ceil(round(end * rate, 6))
        chosen = pictures[first:stop]
        if not len(chosen):
            middle = start if math.isinf(end) else (start + end) / 2
            chosen = pictures[min(round(middle * rate), last)][None]
        return F.normalize(chosen.mean(dim=0), dim=-1)


def _shorter_side(path: Path) -> int:
    """Return the pixels of the shorter side of a film's pictures, at most ``LARGEST``."""
    with open_media(path) as container:
        stream = choose(container, "video")
        if stream is None:
            return 1  # reading it will say that there is no picture
        width, height = seen_size(stream.width, stream.height, stream.sample_aspect_ratio, False)
    return max(1, min(LARGEST, round(min(width, height))))
