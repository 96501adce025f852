"""How to evaluate retrieval: the ``evaluation`` section of a config."""

from __future__ import annotations

import dataclasses
from typing import Any

from fusion.config import ConfigError

PAPERS = {"dual_softmax": "arXiv:2109.04290", "qb_norm": "arXiv:2112.12777"}  # of rescoring


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to evaluate retrieval; the ``evaluation`` section of a config.

    Attributes:
        batch_size: clips embedded at a time by one process; it only changes the speed.
        queries_in_report: number of queries in the report's gallery.
        validation: directions that are ranked after each epoch of training, beside that of
            ``trainer.best``, such as ``[t->va, va->t]``; only what they need is embedded. None:
            those with text alone on one side. The table in the end has all.
        num_workers: processes that read clips; None: as many as ``trainer.num_workers``.
        model: changes that ``fusion evaluate`` makes to the model's own config, such as the
            number of spectrogram frames; the weights must still fit.
        rescoring: further rows of the table, keys of ``PAPERS``.
        dual_softmax_scale: factor of the cosines in the softmax over queries. The authors use a
            temperature of 1 on the logits of CLIP, which are cosines times 100.
        qb_norm_scale: factor of the cosines in QB-Norm; 20 as published.
        qb_norm_bank: the most training clips that are embedded for the bank, evenly spaced.
        tune_late_average: add a row for each late average, tuned on the validation split, see
            :mod:`fusion.evaluation.late_fusion`.
        missing: modalities that are taken away from more and more clips, see
            :mod:`fusion.evaluation.missing`; also ``fusion evaluate --missing``.
        missing_direction: in which direction, such as ``t->va``. None: the first of text, video and
            audio that is not taken away asks, and all the others are found.

    Raises:
        ConfigError: a name is unknown or repeated, or a number is out of its range.
    """

    batch_size: int = 256
    queries_in_report: int = 8
    validation: list[str] | None = None
    num_workers: int | None = None
    model: dict[str, Any] | None = None
    rescoring: list[str] | None = None
    dual_softmax_scale: float = 100.0
    qb_norm_scale: float = 20.0
    qb_norm_bank: int = 5000
    tune_late_average: bool = False
    missing: list[str] | None = None
    missing_direction: str | None = None

    def __post_init__(self) -> None:
        """Check names and ranges."""
        for name, least in {"batch_size": 1, "queries_in_report": 0}.items():
            if (number := getattr(self, name)) < least:
                raise ConfigError(f"evaluation.{name} must be at least {least}; got {number}")
        for name in ("dual_softmax_scale", "qb_norm_scale", "qb_norm_bank"):
            if not 0 < (number := getattr(self, name)) < float("inf"):
                raise ConfigError(f"evaluation.{name} must be more than 0 and finite; got {number}")
        if (self.num_workers or 0) < 0:
            raise ConfigError(f"evaluation.num_workers must be at least 0; got {self.num_workers}")
        names = self.rescoring or []
        for name in names:
            if name not in PAPERS:
                known = ", ".join(PAPERS)
                raise ConfigError(f"evaluation.rescoring: unknown {name!r}; choose from {known}")
        if len(set(names)) < len(names):
            raise ConfigError(
                f"evaluation.rescoring names one twice: {', '.join(names)}; leave one out"
            )
