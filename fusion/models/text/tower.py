"""A frozen text encoder beside a model: texts are encoded on its device, many at a time.

Data loading only numbers the tokens of a text; it would encode sentence by sentence, on the CPU.

Shapes: B clips, L tokens of a text, T tokens of all texts, D width.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fusion.models.text.language_models import LanguageModel
from fusion.tokens import Tokens

TEXT = "text"
BATCH = 1024  # texts of one length that are encoded together
KEPT = {"cuda": 2**29}  # bytes of states that stay on a device, or:
KEPT_ELSEWHERE = 4 * 2**30


class TextReader:
    """What a data set calls for each text: its numbered tokens, see :meth:`.LanguageModel.read`."""

    def __init__(self, encoder: LanguageModel) -> None:
        self.encoder = encoder

    def __call__(self, sentence: str) -> Tensor:
        """Number the tokens of a sentence: (L, 2) int32."""
        return self.encoder.read(sentence)


class TextTower:
    """Makes states of numbered tokens; those of the latest sentences stay on the device.

    A sentence has the same states in any batch, chunk and process, up to rounding: texts of the
    same length make a batch, so none is padded. The transformer follows the model to its device.
    Its weights are no part of the model or of a checkpoint.

    Args:
        encoder: the frozen transformer.
        kept_bytes: of the states that stay; None: 512 MiB of a GPU, or 4 GiB
            of a CPU, which takes them as they are used.
    """

    def __init__(self, encoder: LanguageModel, kept_bytes: int | None = None) -> None:
        self.encoder, self.kept_bytes = encoder, kept_bytes
        self.encoded = 0  # sentences so far
        self._kept = torch.zeros(0, encoder.width, device="meta")  # rows of states, a ring
        self._places: OrderedDict[bytes, tuple[int, int]] = OrderedDict()  # first row, count
        self._next = 0  # the row of the ring that is written next

    def beside(self, model: nn.Module) -> None:
        """Encode the texts in the inputs of a model from now on; more than once is the same."""
        if getattr(model, "text_tower", None) is self:
            return

        def read(inputs: Any) -> Any:
            return self.replace_texts(inputs, next(model.parameters()).device)

        model.register_forward_pre_hook(
            lambda _, given, named: ((read(given[0]), *given[1:]), named), with_kwargs=True
        )
        if (tokenize := getattr(model, "tokenize", None)) is not None:  # not by way of forward
            object.__setattr__(model, "tokenize", lambda inputs: tokenize(read(inputs)))
        object.__setattr__(model, "text_tower", self)  # no part of the model's state

    def replace_texts(self, inputs: Any, device: torch.device) -> Any:
        """Replace the texts of some inputs by their states, if they are numbered tokens."""
        texts = inputs.get(TEXT)
        if texts is None or texts.values.dtype != torch.int32:
            return inputs
        return {**inputs, TEXT: self(texts, device)}

    @torch.no_grad()
    def __call__(self, texts: Tokens, device: torch.device) -> Tokens:
        """Encode the texts of B clips: (T, 2) int32 in CPU memory -> (T', D) on the device."""
        ids, ends = texts.values.numpy(), np.cumsum(texts.host_lengths.numpy())
        sentences = np.split(ids, ends[:-1]) if len(ends) else []
        keys = [sentence.tobytes() for sentence in sentences]
        if self._kept.device != device:
            self._forget(device)
        new = {k: x for k, x in zip(keys, sentences, strict=True) if k and k not in self._places}
        states, places = self._encode(new, device)
        places[b""] = (0, 0)
        known = dict.fromkeys(key for key in keys if key not in places)
        before = [self._places[key] for key in known]
        rows = [states, self._kept[_rows(before).to(device, non_blocking=True)]]
        first = len(states)
        for key, (_, count) in zip(known, before, strict=True):
            places[key] = (first, count)
            first += count
        found = [places[key] for key in keys]
        values = torch.cat(rows)[_rows(found).to(device, non_blocking=True)]
        self._keep({key: places[key] for key in new}, states)
        counts = torch.tensor([count for _, count in found], dtype=torch.int64)
        return Tokens(values, counts.to(device, non_blocking=True), counts)

    def _encode(
        self, sentences: Mapping[bytes, NDArray[np.int32]], device: torch.device
    ) -> tuple[Tensor, dict[bytes, tuple[int, int]]]:
        """Encode sentences: the (T, D) states of all, and the first row and the count of each."""
        parts, places, first = [torch.zeros(0, self.encoder.width, device=device)], {}, 0
        if sentences:
            self.encoder.model.to(device)
        order = sorted(sentences.items(), key=lambda pair: len(pair[1]))
        self.encoded += len(order)
        while order:
            length = len(order[0][1])
            fits = sum(len(x) == length for _, x in order[:BATCH])
            batch, order = order[:fits], order[fits:]
            read = np.stack([sentence for _, sentence in batch])  # (B, L, 2)
            ids = torch.from_numpy(read[..., 0]).to(device, torch.int64, non_blocking=True)
            with torch.autocast(device.type, enabled=False):  # as exact as features
                states = self.encoder.states(ids).float().flatten(0, 1)
            kept = torch.from_numpy(np.flatnonzero(read[..., 1]))
            parts.append(states[kept.to(device, non_blocking=True)])
            for key, sentence in batch:
                count = int(sentence[:, 1].sum())
                places[key] = (first, count)
                first += count
        return torch.cat(parts), places

    def _keep(self, places: Mapping[bytes, tuple[int, int]], states: Tensor) -> None:
        """Write states into the ring, over those that were written first."""
        room = len(self._kept)
        kept = {key: place for key, place in places.items() if place[1]}
        if not kept or len(states) > room:
            return
        if self._next + len(states) > room:
            self._next = 0
        begin, end = self._next, self._next + len(states)
        while self._places:
            key, (first, count) = next(iter(self._places.items()))
            if first >= end or first + count <= begin:
                break
            del self._places[key]
        self._kept[begin:end] = states
        self._places.update({k: (begin + first, count) for k, (first, count) in kept.items()})
        self._next = end

    def _forget(self, device: torch.device) -> None:
        room = self.kept_bytes
        if room is None:
            room = KEPT.get(device.type, KEPT_ELSEWHERE)
        width = self.encoder.width
        self._kept = torch.empty(room // (4 * width), width, device=device)
        self._places.clear()
        self._next = 0


def _rows(places: Sequence[tuple[int, int]]) -> Tensor:
    """Number the rows of stretches, each a first row and a count, one after the other."""
    firsts, counts = np.array(places, dtype=np.int64).reshape(-1, 2).T
    shift = firsts - (np.cumsum(counts) - counts)
    return torch.from_numpy(np.repeat(shift, counts) + np.arange(counts.sum()))
