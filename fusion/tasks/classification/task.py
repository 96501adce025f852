"""Classification of films: which of K classes does a film show?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from torch import nn

from fusion.builders import check_config
from fusion.config import ConfigError, check, merge
from fusion.data.labelled import LABELLED_SETS
from fusion.data.labelled.clips import FilmClips
from fusion.data.untrusted.reading import read_json
from fusion.evaluation.classes import ALL, METRICS, PAIR_METRICS, Classified, class_table
from fusion.evaluation.classes import Settings as EvaluationSettings
from fusion.evaluation.embed import embed
from fusion.files import write_atomically
from fusion.interfaces import Loss
from fusion.models.classifier import CLASSES, VideoClassifier
from fusion.tasks.choosing import Choosing
from fusion.tasks.classification.result import class_scores, describe_classes
from fusion.tasks.classification.sections import report_sections
from fusion.tasks.fit import fit_config
from fusion.tasks.task import Evaluation

NAMES = "classes.json"  # of a checkpoint: its classes, in the order of the scores


class Classification(Choosing):
    """Classify films, see :class:`fusion.tasks.task.Task`."""

    name, loss = "classification", "classes"
    model = VideoClassifier, "classifier"
    metrics = (*METRICS, *PAIR_METRICS)
    items = "class_names", "classes"
    sets = LABELLED_SETS

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.asked = config["model"].get("num_classes")
        is_open = "num_classes" in config["model"] and self.asked is None
        self.config = _with_classes(config, 1) if is_open else dict(config)
        self.builders = check_config(self.config)
        check("evaluation", config["evaluation"], EvaluationSettings)
        self.settings = EvaluationSettings(**config["evaluation"])
        self.classes: list[str] = []
        self._is_new = False  # whether the run begins without a checkpoint

    def build(self) -> tuple[nn.Module, Loss]:
        """Build the model, with published weights where the config asks for them, and the loss."""
        model = self.builders["model"]()
        on_meta = next(model.parameters()).is_meta
        if self._is_new and getattr(model, "pretrained", False) and not on_meta:
            try:
                model.start_pretrained()
            except ValueError as error:
                raise ConfigError(f"model.pretrained=true: {error}") from None
        return model, self.builders["loss"](modalities=model.modalities)

    def open_encoders(
        self, checkpoint: Path | None, own_first: bool = False
    ) -> Mapping[str, str | Path]:
        """Read the classes of a checkpoint, or take those of the data."""
        self._is_new = checkpoint is None
        if checkpoint is not None and (checkpoint / NAMES).exists():
            self.classes = read_classes(checkpoint)
        return {}

    def save_encoders(self, folder: Path) -> None:
        """Write the classes."""
        write_atomically(folder / NAMES, json.dumps(self.classes, ensure_ascii=False))

    def fit(self, processes: int) -> Mapping[str, Any]:
        """Fill in the number of classes."""
        self.classes = list(self.source.class_names)
        # That of init is checked with the other weights.
        if self.config["init"] is None and self.asked not in (None, len(self.classes)):
            raise ConfigError(
                f"model.num_classes is {self.asked}, but the data has {len(self.classes)} classes;"
                " set model.num_classes=null"
            )
        found = fit_config(self.config, self.source, self.source.clips, processes)
        self.config = _with_classes(found, len(self.classes))
        self.builders = check_config(self.config)
        return self.config

    def clips(self, split: str) -> FilmClips:
        """Read a split, with the classes of the model."""
        self.source.class_names = self._class_names()
        clips: FilmClips = self.source.clips(split)
        return clips

    def _class_names(self) -> list[str]:
        """Name the classes in the order of the scores; those of the data may have another."""
        outputs, names, where = self.config["model"].get("num_classes"), self.classes, NAMES
        if not names:
            if not (where := self.config["data"].get("classes")):
                raise ConfigError(
                    f"the checkpoint has no {NAMES}, so it is unknown which class each of its"
                    f" {outputs} scores is of; name a file with the name of a class in each line,"
                    " in the order of the scores, as data.classes of labelled_films"
                )
            names = self.source.class_names
        if len(names) != outputs:
            raise ConfigError(
                f"{where} has {len(names)} names, but the model scores {outputs} classes; name"
                " those that it was trained with"
            )
        return names

    def measure(
        self, model: nn.Module, clips: FilmClips, accelerator: Accelerator
    ) -> dict[str, float]:
        """Classify a clip and a crop of each film, without intervals."""
        line = class_table(self._classify(model, clips, accelerator, 1, 1), intervals=False)[ALL]
        return {f"{ALL} {name}": line[name] for name in (*METRICS, *PAIR_METRICS) if name in line}

    def evaluate(
        self, model: nn.Module, clips: FilmClips, split: str, accelerator: Accelerator
    ) -> Evaluation | None:
        """Classify the films of a split, and show some with the probabilities over time."""
        views = self.settings.clips, self.settings.crops
        found = self._classify(model, clips, accelerator, *views)
        if not accelerator.is_main_process:
            return None
        result = describe_classes(self.source, split, found, self.settings)
        own: Any = accelerator.unwrap_model(model)
        sections = report_sections(own, clips, found, self.settings.films_in_report)
        return Evaluation(result, class_scores(found), sections=sections)

    def _classify(
        self, model: nn.Module, films: FilmClips, accelerator: Accelerator, clips: int, crops: int
    ) -> Classified:
        own: Any = accelerator.unwrap_model(model)
        with own.viewing(clips, crops), films.tested_with(clips):
            found = embed(model, films, accelerator, self.settings.batch_size)
        scores, names = found.embeddings[CLASSES].float(), self.source.class_names
        if scores.shape[1] != len(names):
            raise ConfigError(
                f"the model scores {scores.shape[1]} classes, but {len(names)} have names; name"
                " those that it was trained with"
            )
        return Classified(
            found.ids,
            [film.video for film in films.films],
            films.labels.numpy(),
            scores,
            np.asarray(found.present["video"]),
            names,
            self.source.pairs,
        )


def read_classes(checkpoint: Path) -> list[str]:
    """Read the classes of a checkpoint, in the order of the scores.

    Raises:
        ValueError: the file is missing or damaged.
    """
    file = checkpoint / NAMES
    try:
        names = read_json(file)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("it is not a list of names")
        if not names or len(set(names)) < len(names):
            raise ValueError("it is empty or names a class twice")
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} cannot be read ({error}); copy it from a backup") from None
    return names


def _with_classes(config: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Fill in ``model.num_classes``."""
    return {**config, "model": merge(config["model"], {"num_classes": number})}
