"""How localisation is evaluated: protocols as data, and the ``evaluation`` section of a config."""

from __future__ import annotations

import dataclasses
from typing import Any

from fusion.config import ConfigError

RECALL, FRAMES = "recall", "MoF"  # the main metric of a protocol


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What is measured, and how it is averaged.

    Attributes:
        name: as in tables and configs.
        rule: one sentence or two.
        main: the metric that methods are compared by.
        aligned: whether films are also cut into segments of a given order.
        log_softmax: whether steps are compared within each second before they are assigned.
    """

    name: str
    rule: str
    main: str = RECALL
    aligned: bool = False
    log_softmax: bool = False

    def __str__(self) -> str:
        return f"{self.name}: {self.rule}"


_ASSIGNED = (
    "every step of a film's list gets exactly one second, in order, so that the sum of the scores"
    " is highest (ordered), or its best second (argmax); recall of a film: of the steps that occur"
    " in it those whose second is in an annotated interval; mean over the films of a task, then"
    " over tasks"
)
_ALIGNED = (
    "the sequence of a film's steps and of the background between them is given and aligned by"
    " Viterbi; MoF: seconds with the right label, of all films together; IoU and IoD: of each"
    " segment that is no background, mean over those of a film, then over films"
)
PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("steps", f"{_ASSIGNED}; {_ALIGNED}", aligned=True),
        Protocol("crosstask", f"as for CrossTask (arXiv:1903.08225): {_ASSIGNED}"),
        Protocol(
            "mining-youtube",
            f"as for MiningYouTube (arXiv:1906.01012): {_ALIGNED}; recall by log softmax over"
            f" steps, as in MCN's code: {_ASSIGNED}",
            main=FRAMES,
            aligned=True,
            log_softmax=True,
        ),
    )
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to evaluate localisation; the ``evaluation`` section of a config.

    Attributes:
        protocol: one of ``PROTOCOLS``.
        batch_size: windows embedded at a time by one process; it only changes the speed.
        films_in_report: how many films a report draws.
        scale: factor of the scores in a log softmax over steps; 20 is the inverse of the
            temperature 0.05 of the training.
        background: a text that stands for the background in alignments; None: its score is the mean
            of all scores of the film.
        model: changes to the model's own config, see :class:`fusion.evaluation.settings.Settings`.

    Raises:
        ConfigError: a name is unknown, or a number is out of its range.
    """

    protocol: str = "steps"
    batch_size: int = 256
    films_in_report: int = 6
    scale: float = 20.0
    background: str | None = None
    model: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Check names and ranges."""
        if self.protocol not in PROTOCOLS:
            raise ConfigError(
                f"evaluation.protocol: unknown {self.protocol!r}; choose from"
                f" {', '.join(PROTOCOLS)}"
            )
        for name, least in {"batch_size": 1, "films_in_report": 0}.items():
            if (number := getattr(self, name)) < least:
                raise ConfigError(f"evaluation.{name} must be at least {least}; got {number}")
        if not 0 < self.scale < float("inf"):
            raise ConfigError(
                f"evaluation.scale must be more than 0 and finite; got {self.scale:g}"
            )

    @property
    def rules(self) -> Protocol:
        """The protocol."""
        return PROTOCOLS[self.protocol]


@dataclasses.dataclass(frozen=True)
class WholeFilmSettings:
    """How to find whole films; the ``evaluation`` section of a config.

    Attributes:
        batch_size: clips embedded at a time by one process; it only changes the speed.
        background_seconds: length of further clips, of all that is outside of captions; None: there
            are none ("background removed" in MCN's tables).
        film_letters: films are named by so many first letters of the names of clips, such as 11 of
            YouTube; None: by the video of each caption.
        model: changes to the model's own config, see :class:`fusion.evaluation.settings.Settings`.

    Raises:
        ConfigError: a number is out of its range.
    """

    batch_size: int = 256
    background_seconds: float | None = None
    film_letters: int | None = None
    model: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("batch_size", "film_letters"):
            if (number := getattr(self, name)) is not None and number < 1:
                raise ConfigError(f"evaluation.{name} must be at least 1; got {number}")
        if self.background_seconds is not None and not 0 < self.background_seconds < float("inf"):
            raise ConfigError(
                "evaluation.background_seconds must be above 0 and finite; got"
                f" {self.background_seconds:g}"
            )
