"""What a config's sections build, checked before anything slow begins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fusion.config import ConfigError, check, choose
from fusion.data.datasets import DATASETS
from fusion.evaluation.rescoring import Rescoring
from fusion.losses import LOSSES
from fusion.models import MODELS, TEXT_ENCODERS
from fusion.training.settings import Settings

Builders = dict[str, Callable[..., Any]]


def evaluation_settings(
    batch_size: int = 256,
    queries_in_report: int = 8,
    model: dict[str, Any] | None = None,
    rescoring: list[str] | None = None,
    dual_softmax_scale: float = 100.0,
    qb_norm_scale: float = 20.0,
    qb_norm_bank: int = 5000,
) -> dict[str, Any]:
    """The ``evaluation`` section of a config.

    Args:
        batch_size: clips embedded at a time by one process; it changes the speed alone.
        queries_in_report: number of queries in the report's gallery.
        model: what ``tools/evaluate.py`` changes in the model's own config, such as the number of
            spectrogram frames; the weights must still fit.
        rescoring: rows that the table has beside the plain ones, out of ``dual_softmax`` and
            ``qb_norm``; none if not given.
        dual_softmax_scale: see :class:`fusion.evaluation.rescoring.Rescoring`.
        qb_norm_scale: see there.
        qb_norm_bank: see there.

    Raises:
        ConfigError: a name is unknown or a number too small.
    """
    numbers = {"batch_size": batch_size, "queries_in_report": queries_in_report}
    for name, least in {"batch_size": 1, "queries_in_report": 0}.items():
        if numbers[name] < least:
            raise ConfigError(f"evaluation.{name} must be at least {least}; got {numbers[name]}")
    names = tuple(map(str, rescoring or ()))
    try:
        marked = Rescoring(names, dual_softmax_scale, qb_norm_scale, qb_norm_bank)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return numbers | {"model": model, "rescoring": marked}


def check_config(config: Mapping[str, Any]) -> Builders:
    """Check every section against what it builds, before anything slow begins.

    Returns:
        For each section what builds its object.

    Raises:
        ConfigError: a name, a key or a value is wrong.
    """
    check("trainer", config["trainer"], Settings)
    check("evaluation", config["evaluation"], evaluation_settings)
    return {
        "data": choose("data", config["data"], DATASETS),
        "text_encoder": _choose_text_encoder(config["text_encoder"]),
        "model": choose("model", config["model"], MODELS),
        "loss": choose("loss", config["loss"], LOSSES, given=["modalities"]),
    }


def build_text_encoder(spec: Mapping[str, Any], sentences: Iterable[str], seed: int) -> Any:
    """Build what a ``text_encoder`` section says.

    Args:
        spec: the section.
        sentences: to learn from, if it learns.
        seed: of what it draws.

    Raises:
        ConfigError: a name, a key or a value is wrong.
        ValueError: a file that it names cannot be used.
    """
    return _choose_text_encoder(spec)(sentences=sentences, seed=seed)


def _choose_text_encoder(spec: Mapping[str, Any]) -> Callable[..., Any]:
    builders = {name: encoder.train for name, encoder in TEXT_ENCODERS.items()}
    return choose("text_encoder", spec, builders, given=["sentences", "seed"])
