"""Localisation: when each step of a film happens. It tests models that were trained for retrieval.

Shapes: T seconds of a film, K steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm

from fusion.builders import check_config, modalities_of
from fusion.checkpoint import read_recipe
from fusion.config import ConfigError, check
from fusion.data.datasets.clips import CUT, seconds_uncut
from fusion.data.features.problems import warn
from fusion.data.features.readers import Reader
from fusion.data.labelled.raw_video import KEY as RAW
from fusion.data.steps import STEP_SETS
from fusion.data.steps.annotation import Notes, StepFilm
from fusion.data.steps.films import StepClips, StepVideos
from fusion.data.steps.windows import Windows
from fusion.evaluation.embed import embed
from fusion.evaluation.localisation.scores import (
    TEXT,
    combinations_of,
    directions_from_text,
    score_windows,
)
from fusion.evaluation.localisation.settings import Settings
from fusion.evaluation.localisation.table import ScoredFilm
from fusion.interfaces import Loss
from fusion.modalities import Direction, spell
from fusion.parts import is_own
from fusion.tasks.localisation.result import describe_localisation
from fusion.tasks.localisation.sections import report_sections
from fusion.tasks.retrieval.task import Retrieval
from fusion.tasks.task import Evaluation, check_widths
from fusion.tasks.vocabulary import count_words

UNKNOWN = "steps without a known word, which score 0 everywhere"
EMPTY = "films in which no step occurs, left out"


class OfTrainedRetrieval(Retrieval):
    """A task that tests models of retrieval, and trains none.

    Attributes:
        tests: names of the tasks whose models it tests.
        settings_class: checks the section ``evaluation``.
        test_config: recipe of a test, for messages; empty: it has the name of the task.
    """

    tests = ("retrieval",)
    reads_frames = False
    encodes_beside = False  # steps are few, and encoded once
    settings_class: Any
    test_config = ""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config, self.builders = config, check_config(config)
        check("evaluation", config["evaluation"], self.settings_class)
        self.test_settings = self.settings_class(**config["evaluation"])
        self.text_encoder: Any = None
        self._words = {}

    def build(self) -> tuple[nn.Module, Loss]:
        """Refuse: nothing is trained."""
        self._refuse()

    def check(self, model: Any, loss: Any, best: str | None) -> None:
        """Refuse: nothing is trained."""
        self._refuse()

    def embed_texts(
        self, model: nn.Module, texts: Sequence[str], accelerator: Accelerator, batch_size: int
    ) -> tuple[dict[str, bool], dict[str, Tensor]]:
        """Embed texts; return which have a known word, and their embeddings (E,)."""
        query, items = spell([TEXT]), Texts(texts, self.text_encoder)
        embedded = embed(model, items, accelerator, batch_size, combinations=[query])
        known = embedded.present[TEXT].tolist()
        vectors = embedded.embeddings[query]
        return dict(zip(texts, known, strict=True)), dict(zip(texts, vectors, strict=True))

    def _refuse(self) -> NoReturn:
        name = self.config["task"]
        raise ConfigError(
            f"task {name} tests models that were trained for retrieval; train one, such as by:"
            " fusion train eao, and test it by: fusion evaluate RUN --set"
            f" {self.test_config or name}"
        )


def check_without_frames(task: str, data: Mapping[str, Any]) -> None:
    """Refuse to test a model of frames: windows of films have features alone.

    Args:
        task: what the model is tested as.
        data: a ``data`` section, that of the training or of the test.

    Raises:
        ConfigError: it has ``raw_video``.
    """
    if data.get(RAW) is not None:
        raise ConfigError(
            f"task {task} cannot read frames (data.{RAW}): it tests models that were trained on"
            f" features; train one without data.{RAW}, or evaluate this one as retrieval"
        )


class Localisation(OfTrainedRetrieval):
    """Find the seconds of steps in films, see :class:`fusion.tasks.task.Task`."""

    settings_class = Settings
    _trained: Mapping[str, Any] | None = None  # how the clips of the training were made

    def open_data(self) -> None:
        """Open the films."""
        name = self.config["data"].get("name")
        is_known = name in STEP_SETS or is_own(name)
        if is_known:  # others are not opened, as the built-in corpus would be rendered for nothing
            super().open_data()
        if not is_known or not isinstance(self.source, StepVideos):
            raise ConfigError(f"data.name: {name!r} has no steps; take {', '.join(STEP_SETS)}")

    def open_encoders(
        self, checkpoint: Path | None, own_first: bool = False
    ) -> Mapping[str, str | Path]:
        """Read the text encoder of a checkpoint, and how long the clips of its training were."""
        self._trained = None if checkpoint is None else read_recipe(checkpoint)
        return super().open_encoders(checkpoint, own_first)

    def clips(self, split: str) -> StepClips:
        """Read a split and check that its features fit the model."""
        clips = self._read(split)
        assert isinstance(clips, StepClips)
        check_widths(self.config["model"], clips[0])
        words = count_words(
            (step for film in clips.films for step in film.steps), self.text_encoder
        )
        if words is not None:
            words.check(split, self.config["max_unknown"])
            if said := words.describe():
                warn(f"{split}: {said}")
        if said := longer_than_trained(clips.windows, clips.reader, self._trained):
            warn(f"{split}: {said}")
        return clips

    def evaluate(
        self,
        model: nn.Module,
        clips: Any,
        split: str,
        accelerator: Accelerator,
    ) -> Evaluation | None:
        """Find the steps of every film, in every direction from text."""
        films, notes = self._score(model, clips, accelerator)
        if not accelerator.is_main_process:
            return None
        settings = self.test_settings
        result, scores = describe_localisation(self.source, split, films, settings, notes)
        sections = report_sections(films, settings, result["table"]["lead"], clips.folder)
        return Evaluation(result, scores, sections=sections)

    def _score(
        self, model: nn.Module, clips: StepClips, accelerator: Accelerator
    ) -> tuple[list[ScoredFilm], Notes]:
        """Score the seconds of each film; of a film only its scores stay in memory."""
        ways, notes = self._ways(model), Notes()
        texts = [step for film in clips.films for step in film.steps]
        background = self.test_settings.background
        texts += [] if background is None else [background]
        where = (accelerator, self.test_settings.batch_size)
        known, vectors = self.embed_texts(model, list(dict.fromkeys(texts)), *where)
        for text, is_known in known.items():
            if not is_known:
                notes.add(UNKNOWN, repr(text))
        films = []
        hidden = not accelerator.is_local_main_process
        for film in tqdm(clips.films, desc="films", unit="film", leave=False, disable=hidden):
            asked = [*film.steps, *([] if background is None else [background])]
            seconds = embed(
                model, clips.windows_of(film), *where, combinations=combinations_of(ways)
            )
            flags = torch.tensor([known[text] for text in asked])
            found = score_windows(seconds, torch.stack([vectors[t] for t in asked]), flags, ways)
            scored = _scored(film, found, background is not None, clips.windows.step)
            if scored.mask.any():
                films.append(scored)
            else:
                notes.add(EMPTY, film.video)
        if not films:
            raise ConfigError("no film has a second in which a step occurs; check the annotations")
        return films, clips.notes.joined(notes)

    def _ways(self, model: Any) -> Sequence[Direction]:
        names = modalities_of(self.config["model"]) or list(model.modalities)
        inner = getattr(model, "module", model)
        ways = directions_from_text(names, inner.combinations)
        if not ways:
            raise ConfigError(
                "the model compares no text with films: it needs the modality text, and the"
                f" combinations t and another one; it has {', '.join(inner.combinations)}"
            )
        return ways


def longer_than_trained(windows: Windows, reader: Reader, recipe: Mapping[str, Any] | None) -> str:
    """Say that windows are longer than the clips of a model's training; empty if they are not.

    Args:
        windows: of the test.
        reader: of its features, whose rates are those of the training.
        recipe: of the checkpoint, see :meth:`.dataset.Source.recipe`; None: it is not known.
    """
    tokens, frames = ((recipe or {}).get(n) for n in ("max_video_tokens", "max_audio_frames"))
    if tokens is None or frames is None:
        return ""
    longest, length = seconds_uncut(reader, tokens, frames), windows.before + windows.after
    if length <= longest + CUT:
        return ""
    return (
        f"windows last {length:g} s, but the model was trained on clips of at most {longest:.3g} s,"
        f" so they are not like them; data.before={longest / 2:.3g} data.after={longest / 2:.3g}"
        " makes them as long"
    )


class Texts(Dataset[dict[str, Any]]):
    """Texts as items for a model."""

    def __init__(self, texts: Sequence[str], encoder: Any) -> None:
        self.texts, self._encoder = texts, encoder
        if prepare := getattr(encoder, "prepare", None):
            prepare(texts)

    def __len__(self) -> int:
        """Number of texts."""
        return len(self.texts)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Encode a text."""
        if not 0 <= index < len(self.texts):
            raise IndexError(index)
        return {"id": self.texts[index], TEXT: self._encoder(self.texts[index])}


def _scored(
    film: StepFilm, found: Mapping[str, Any], has_background: bool, grid: float
) -> ScoredFilm:
    number = len(film.steps)
    empty = {way: scores[:, number] for way, scores in found.items()} if has_background else None
    scores = {way: scores[:, :number] for way, scores in found.items()}
    return ScoredFilm(film.video, film.steps, film.intervals, scores, empty, grid, film.task)
