"""From a film to the rows that the store keeps of it, in whatever process that is.

Shapes: N pictures, H x W pixels, S samples, R rows, D width.
"""

from __future__ import annotations

import itertools
import os
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusion.data.media.film import Piece
from fusion.data.media.log_mel import Spectrogram
from fusion.extract.backbone import Backbone
from fusion.extract.decoder_pool import DecoderPool, End, Failed, Task
from fusion.extract.settings import AUDIO, AnyBackbone, facts_of
from fusion.extract.transformers_models import SoundBackbone
from fusion.training.memory import is_out_of_memory

TOO_LARGE = "out of memory: its pictures are too large; scale the film down"


class FilmRows:
    """Computes the features of one film; keeps its rows and a few seconds of its pictures.

    The windows that are computed together are of one film and always the same ones, so the rows do
    not depend on other films.
    """

    def __init__(self, backbones: Mapping[str, AnyBackbone]) -> None:
        self._tracks: dict[str, Any] = {
            f: _PictureRows(b) if isinstance(b, Backbone) else _SoundRows(b)
            for f, b in backbones.items()
        }
        self._tracks[AUDIO] = Spectrogram()

    def push(self, piece: Piece) -> None:
        """Take a piece of the film."""
        self._tracks[piece.field].push(piece.data)

    def take(self) -> dict[str, Tensor]:
        """Return the rows that are finished, (R, D) float16, and forget them: not the spectrogram.

        It depends on the whole sound, so :meth:`end` alone returns it.
        """
        return {field: track.take() for field, track in self._tracks.items() if field != AUDIO}

    def end(self) -> dict[str, Tensor]:
        """Return the rows of each field, (R, D) float16; R is 0 without picture or sound.

        Those that were taken before are not among them.
        """
        return {field: track.end() for field, track in self._tracks.items()}


class _PictureRows:
    def __init__(self, backbone: Backbone) -> None:
        self._backbone, self._sampling = backbone, backbone.sampling
        self._frames: deque[NDArray[Any]] = deque()  # (H, W, 3) each, from the next window on
        self._windows: list[Tensor] = []
        self._rows = [torch.zeros(0, backbone.dim, dtype=torch.float16)]

    def push(self, pictures: NDArray[Any]) -> None:
        self._frames.extend(pictures)
        while len(self._frames) >= self._sampling.frames:
            self._cut()

    def take(self) -> Tensor:
        rows, self._rows = torch.cat(self._rows), self._rows[:1]
        return rows

    def end(self) -> Tensor:
        while self._frames:
            self._cut()
        self._compute()
        return torch.cat(self._rows)

    def _cut(self) -> None:
        """Cut a window off the frames; black pictures follow the last frame."""
        shown = list(itertools.islice(self._frames, self._sampling.frames))
        black = [np.zeros_like(shown[0])] * (self._sampling.frames - len(shown))
        self._windows.append(torch.from_numpy(np.stack(shown + black)))
        for _ in range(min(self._sampling.stride, len(self._frames))):
            self._frames.popleft()
        if len(self._windows) >= self._backbone.batch_of(*shown[0].shape[:2]):
            self._compute()

    def _compute(self) -> None:
        if self._windows:
            self._rows.append(self._backbone.compute(torch.stack(self._windows)).half())
            self._windows = []


class _SoundRows:
    def __init__(self, backbone: SoundBackbone) -> None:
        self._backbone, hearing = backbone, backbone.sampling
        self._length, self._step = (s * hearing.rate for s in (hearing.seconds, hearing.stride))
        self._samples = np.zeros(0, np.float32)  # from the next stretch on
        self._rows = [torch.zeros(0, backbone.dim, dtype=torch.float16)]

    def push(self, samples: NDArray[Any]) -> None:
        self._samples = np.concatenate([self._samples, samples])
        while len(self._samples) >= self._length:
            self._cut()

    def take(self) -> Tensor:
        rows, self._rows = torch.cat(self._rows), self._rows[:1]
        return rows

    def end(self) -> Tensor:
        while len(self._samples):
            self._cut()
        return torch.cat(self._rows)

    def _cut(self) -> None:
        stretch, self._samples = self._samples[: self._length], self._samples[self._step :]
        self._rows.append(self._backbone.compute(stretch).half())


class Extracted(NamedTuple):
    """What the store is to keep of a film; or the problem for which it can keep nothing."""

    features: dict[str, Any]  # (R, D) float16 of each field
    facts: dict[str, Any]
    problem: str | None = None


Event = float | Extracted  # of a film: seconds that are done, and at the end what was extracted


class Extractor:
    """Extracts films, several at a time.

    A film's rows do not depend on what else is extracted, nor on the process that does it.

    Args:
        backbones: by field, on the device where they compute.
        decoders: decode the films.
    """

    def __init__(self, backbones: Mapping[str, AnyBackbone], decoders: DecoderPool) -> None:
        self._decoders, self._facts = decoders, facts_of(backbones)
        # Of the films that are being decoded
        self._rows: dict[str, FilmRows] = defaultdict(lambda: FilmRows(backbones))
        self._problems: dict[str, str] = {}

    def extract(self, tasks: Iterable[Task]) -> Generator[tuple[Task, Event], None, None]:
        """Extract films; events of several films are mixed.

        Of more than one decoder, films end in any order. See :meth:`.DecoderPool.decode`.
        """
        events = self._decoders.decode(tasks)
        try:
            for task, event in events:
                if isinstance(event, Piece):
                    self._guard(task, self._rows[task.name].push, event)
                    yield task, event.seconds
                else:
                    yield task, self._end(task, event)
        finally:
            events.close()

    def _guard(self, task: Task, action: Callable[..., Any], *arguments: Any) -> Any:
        """Call an action for a film, unless memory ran out for it before."""
        try:
            return None if task.name in self._problems else action(*arguments)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self._problems[task.name] = TOO_LARGE
            return None

    def _end(self, task: Task, event: End | Failed) -> Extracted:
        rows = self._rows[task.name]
        del self._rows[task.name]
        if isinstance(event, Failed):
            self._problems.pop(task.name, None)
            return Extracted({}, {}, event.problem.removeprefix(f"{task.path}: "))
        features = self._guard(task, rows.end)
        if features is None:
            return Extracted({}, {}, self._problems.pop(task.name))
        facts = {"duration": round(event.seconds, 3), "size": event.size, "mtime": event.mtime}
        facts |= {"problems": list(event.problems), "notes": list(event.notes)} | self._facts
        return Extracted(features, facts)


def own_device() -> torch.device:
    """Return where this process computes: on its GPU, if there is one."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK") or 0) % torch.cuda.device_count())
