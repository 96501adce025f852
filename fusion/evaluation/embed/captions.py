"""Clips with several captions: what is not text is read and embedded once for all of them.

Shapes: U clips of a batch, C captions of theirs.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import Dataset

from fusion.data.datasets.dataset import collate
from fusion.evaluation.embed.plan import CLIP, ITEM, PRESENT, join
from fusion.evaluation.embed.store import Written
from fusion.modalities import letters_of
from fusion.out_of_memory import Blocks
from fusion.tokens import Batch, Tokens

TEXT = "text"  # the modality in which items of one clip differ
Inputs = Mapping[str, Tokens]


@dataclasses.dataclass(frozen=True)
class CaptionBatch:
    """Some clips, with all their captions."""

    clips: Batch  # U, with the text of the first caption of each
    ids: tuple[str, ...]  # C names of items
    texts: Tokens | None  # of C captions; None: texts are not read
    owners: Tensor  # (C,) int64, the number of each caption's clip in the batch, ascending

    def pin_memory(self) -> CaptionBatch:
        """Pin every tensor; called by ``DataLoader``."""
        texts = self.texts and self.texts.pin_memory()
        return dataclasses.replace(self, clips=self.clips.pin_memory(), texts=texts)


class CaptionsOfClips(Dataset[list[dict[str, Any]]]):
    """Clips with all their captions, as data set and as :class:`.plan.Plan`.

    Args:
        clips: a :class:`fusion.data.datasets.dataset.ClipSet`.
        batch_size: captions of a batch; a clip with more makes a batch of its own. As many captions
            or clips are embedded at a time.
        shows: the number of each item's clip.
        combinations: which to embed.
        device: where the model is.
        accelerator: says in which precision the parts of a model compute; None: as they are.
    """

    def __init__(
        self,
        clips: Any,
        batch_size: int,
        shows: Sequence[int],
        combinations: Iterable[str],
        device: torch.device,
        accelerator: Accelerator | None,
    ) -> None:
        self.clips, self.device, self.accelerator = clips, device, accelerator
        items: dict[int, list[int]] = {}
        for item, clip in enumerate(shows):
            items.setdefault(clip, []).append(item)
        self.items_of = list(items.values())
        number = {clip: place for place, clip in enumerate(items)}
        self.clip_of_items: Tensor | None = torch.tensor([number[clip] for clip in shows])
        self.counts = {ITEM: len(shows), CLIP: len(items)}
        self.batches = list(_fill_batches([len(own) for own in self.items_of], batch_size))
        self.combinations = list(combinations)
        self.with_text = [c for c in self.combinations if TEXT[0] in c]
        self.without_text = [c for c in self.combinations if TEXT[0] not in c]
        self.blocks = {ITEM: Blocks(batch_size, "captions"), CLIP: Blocks(batch_size, "clips")}
        self.items: Dataset[Any] = self

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.items_of)

    def __getitem__(self, number: int) -> list[dict[str, Any]]:
        """Read a clip: its first item, and the name and text of each further one."""
        first, *further = self.items_of[number]
        return [self.clips[first], *(self.clips.caption(item) for item in further)]

    @staticmethod
    def collate(clips: Sequence[Sequence[dict[str, Any]]]) -> CaptionBatch:
        """Put clips and captions end to end."""
        captions = [caption for clip in clips for caption in clip]
        sizes = torch.tensor([len(clip) for clip in clips])
        has_text = TEXT in captions[0]
        texts = Tokens.pack([caption[TEXT] for caption in captions]) if has_text else None
        return CaptionBatch(
            collate([clip[0] for clip in clips]),
            tuple(caption["id"] for caption in captions),
            texts,
            torch.arange(len(clips)).repeat_interleave(sizes),
        )

    def embed(self, model: nn.Module, numbers: Sequence[int], batch: CaptionBatch) -> list[Written]:
        """Embed clips and captions; the rows are on the CPU."""
        of_clips, joined = self._embed_clips(model, batch.clips)
        flags = {PRESENT + m: own for m, own in batch.clips.present.items() if m != TEXT}
        found: dict[str, dict[str, Tensor]] = {CLIP: of_clips | flags, ITEM: {}}
        if batch.texts is not None:
            found[ITEM] = self._embed_captions(model, batch.texts, batch.owners, joined)
            found[ITEM][PRESENT + TEXT] = batch.texts.host_lengths > 0
        places = self.rows([numbers])
        return [
            Written(f"{kind} {name}", kind, places[kind], rows)
            for kind, named in found.items()
            for name, rows in named.items()
        ]

    def names(self, numbers: Sequence[int], batch: CaptionBatch) -> list[tuple[int, str]]:
        """Return the number and the name of each item of a batch."""
        return list(zip(self._items(numbers), batch.ids, strict=True))

    def rows(self, batches: Iterable[Sequence[int]]) -> dict[str, Tensor]:
        """Return the rows of items and of clips that some batches give, in their order."""
        clips = [number for batch in batches for number in batch]
        found = {ITEM: self._items(clips), CLIP: clips}
        return {kind: torch.tensor(own, dtype=torch.int64) for kind, own in found.items()}

    def order(self, combinations: Iterable[str]) -> list[str]:
        """Order combinations as they were asked for."""
        return sorted(combinations, key=self.combinations.index)

    def order_of_modalities(self, names: Iterable[str]) -> list[str]:
        """Order modalities as in the letters of a combination."""
        return list(letters_of(names).values())

    def _items(self, clips: Iterable[int]) -> list[int]:
        return [item for clip in clips for item in self.items_of[clip]]

    def _embed_clips(self, model: Any, clips: Batch) -> tuple[dict[str, Tensor], Inputs]:
        """Embed what is not text; return also what texts are joined with, on the device."""
        parts: list[tuple[dict[str, Tensor], Inputs]] = []
        others = [name for name in clips.inputs if name != TEXT]
        joined = [name for name in others if any(name[0] in c for c in self.with_text)]
        needed = [name for name in others if any(name[0] in c for c in self.combinations)]

        def work(start: int, stop: int) -> None:
            inputs = clips.part(start, stop).to(self.device, non_blocking=True).inputs
            inputs = {name: inputs[name] for name in others}
            if hasattr(model, "tokenize"):  # encoders run once for all that reads their tokens
                with self._precision():
                    inputs = model.tokenize({name: inputs[name] for name in needed})
            found = self._call(model, inputs, self.without_text)
            parts.append((found, {name: inputs[name] for name in joined}))

        self.blocks[CLIP].run(len(clips.ids), work)
        rows = {c: join([found[c] for found, _ in parts]) for c in self.without_text}
        return rows, {name: Tokens.join([kept[name] for _, kept in parts]) for name in joined}

    def _embed_captions(
        self, model: Any, texts: Tokens, owners: Tensor, clips: Inputs
    ) -> dict[str, Tensor]:
        """Embed texts, alone and joined with the clips that own them."""
        parts: list[dict[str, Tensor]] = []
        calls = [[c for c in self.with_text if (c == TEXT[0]) == alone] for alone in (True, False)]

        def work(start: int, stop: int) -> None:
            inputs = {TEXT: texts.part(start, stop).to(self.device, non_blocking=True)}
            beside = {name: x.select(owners[start:stop]) for name, x in clips.items()}
            if hasattr(model, "tokenize"):  # one pass for all, which shares what it can
                with self._precision():
                    inputs = model.tokenize(inputs)
                parts.append(self._call(model, inputs | beside, self.with_text))
            else:
                found = self._call(model, inputs, calls[0])
                parts.append(found | self._call(model, inputs | beside, calls[1]))

        self.blocks[ITEM].run(texts.num_clips, work)
        return {c: join([part[c] for part in parts]) for c in self.with_text}

    def _call(self, model: Any, inputs: Inputs, combinations: list[str]) -> dict[str, Tensor]:
        if not combinations:
            return {}
        if hasattr(model, "tokenize"):
            with self._precision():
                found = model.embed_tokens(inputs, combinations)
        else:
            found = model(inputs, combinations)
        return {c: (x.float() if x.itemsize < 4 else x).cpu() for c, x in found.items()}

    @contextlib.contextmanager
    def _precision(self) -> Iterator[None]:
        """Compute as in the model's own forward pass, which Accelerate has wrapped."""
        with self.accelerator.autocast() if self.accelerator else contextlib.nullcontext():
            yield


def _fill_batches(captions: Sequence[int], most: int) -> Iterator[list[int]]:
    """Put neighbouring clips together that have at most so many captions, one clip at least."""
    batch: list[int] = []
    total = 0
    for clip, count in enumerate(captions):
        if batch and total + count > most:
            yield batch
            batch, total = [], 0
        batch.append(clip)
        total += count
    if batch:
        yield batch
