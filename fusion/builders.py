"""What the sections of a config build, checked before anything slow begins."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fusion.config import ConfigError, choose, merge
from fusion.data.datasets import DATASETS
from fusion.data.datasets.dropping import KEY as DROP
from fusion.data.datasets.dropping import check_shares
from fusion.data.labelled import LABELLED_SETS
from fusion.data.labelled.raw_video import KEY as RAW
from fusion.data.labelled.raw_video import RawVideo
from fusion.data.questions import QUESTION_SETS
from fusion.data.steps import STEP_SETS
from fusion.losses import LOSSES
from fusion.models import MODELS, TEXT_ENCODERS
from fusion.models.text.encoders import WORD_VECTOR_WIDTH
from fusion.models.text.language_model_files import default_text_encoder, language_model_width
from fusion.parts import find_part

AUTO = {"auto": default_text_encoder}


def check_config(config: Mapping[str, Any]) -> dict[str, Callable[..., Any]]:
    """Check the sections ``data``, ``text_encoder``, ``model`` and ``loss`` of a config.

    Returns:
        For each of them the function that builds its object; widths that are left to the data are
        1 until they are known.

    Raises:
        ConfigError: a name, a key or a value is wrong.
    """
    spec = config["text_encoder"]
    data: dict[str, Any] = DATASETS | QUESTION_SETS | LABELLED_SETS | STEP_SETS
    _check_dropping(config)
    raw_video_of(config)
    return {
        "data": choose("data", config["data"], data, further=[DROP, RAW]),
        "text_encoder": _choose_text_encoder(spec) if spec else lambda **given: None,
        "model": choose("model", _with_placeholders(config["model"]), MODELS),
        "loss": choose("loss", config["loss"], LOSSES, given=["modalities"]),
    }


def _check_dropping(config: Mapping[str, Any]) -> None:
    """Check ``data.drop_modalities``, which is the same for all data sets."""
    shares = config["data"].get(DROP) or {}
    if not isinstance(shares, Mapping):
        raise ConfigError(
            f"data.{DROP} must name modalities, each with a probability, such as {{audio: 0.2}};"
            f" got {shares!r}"
        )
    try:
        check_shares(shares, modalities_of(config["model"]))
    except ValueError as error:
        raise ConfigError(str(error)) from None


def raw_video_of(config: Mapping[str, Any]) -> RawVideo | None:
    """Return what ``data.raw_video`` says; None if the config reads no frames.

    ConfigError: a key or a value is wrong.
    """
    spec = config["data"].get(RAW)
    if spec is None:
        return None
    if not isinstance(spec, Mapping):
        raise ConfigError(f"data.{RAW} must be a mapping, such as {{frames: 8}}; got {spec!r}")
    try:
        settings: RawVideo = choose(f"data.{RAW}", {**spec, "name": RAW}, {RAW: RawVideo})()
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if (names := modalities_of(config["model"])) and settings.modality not in names:
        raise ConfigError(
            f"data.{RAW}.modality is {settings.modality}, which is no modality of the model;"
            f" choose from {', '.join(names)}"
        )
    return settings


def modalities_of(model: Mapping[str, Any]) -> list[str]:
    """List the modalities that a ``model`` section names; none if a part of one's own says them."""
    return [name for name, spec in (model.get("modalities") or {}).items() if spec is not None]


def left_to_the_data(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List the modalities whose ``dim`` or ``num_frames`` a ``model`` section does not say."""
    missing = []
    for name, spec in (model.get("modalities") or {}).items():
        encoder = (spec or {}).get("encoder")
        if spec is not None and encoder is None and spec.get("dim") is None:
            missing.append((name, "dim"))
        elif encoder is not None and encoder.get("num_frames", 0) is None:
            missing.append((name, "num_frames"))
    return missing


def _with_placeholders(model: Mapping[str, Any]) -> Mapping[str, Any]:
    """Fill in values that only the data will tell, so that a config can be checked before."""
    changes: dict[str, Any] = {
        name: {"dim": 1} if key == "dim" else {"encoder": {"num_frames": 64}}
        for name, key in left_to_the_data(model)
    }
    return merge(model, {"modalities": changes}) if changes else model


def leaves_text_encoder(config: Mapping[str, Any]) -> bool:
    """Return whether a config has ``text_encoder: {name: auto}``."""
    return (config["text_encoder"] or {}).get("name") in AUTO


def settle_text_encoder(
    config: Mapping[str, Any], agree: Callable[[Callable[[], Any]], Any] = operator.call
) -> dict[str, Any]:
    """Give a config its text encoder and, as width of the model's texts, that of the encoder.

    ``text_encoder: {name: auto, model: …}`` becomes what :func:`.default_text_encoder` finds; with
    ``train: true`` a language model becomes a part of the model. A config without it, and without a
    language model, stays as it is. ``agree`` calls what finds it, for several processes once.
    """
    spec = config["text_encoder"] or {}
    is_auto = leaves_text_encoder(config)
    if is_auto:
        spec = agree(choose("text_encoder", spec, AUTO))
    text: dict[str, Any] = {"dim": WORD_VECTOR_WIDTH}
    if spec.get("name") == "hf" and spec.get("model"):
        is_trained = spec.get("train")
        spec = _without_train(spec)
        if is_trained:
            spec["name"] = "hf_tokens"
            text = {"encoder": build_text_encoder(spec, sentences=(), seed=0).encoder_spec()}
        else:
            text = {"dim": language_model_width(spec["model"])}
    elif not is_auto:
        return dict(config)
    settled, model = {**config, "text_encoder": spec}, config["model"]
    if "dim" in ((model.get("modalities") or {}).get("text") or {}):
        modalities = {**model["modalities"], "text": text}
        settled["model"] = {**model, "modalities": modalities}
    return settled


def build_text_encoder(spec: Mapping[str, Any], sentences: Iterable[str], seed: int) -> Any:
    """Build what a ``text_encoder`` section says; some learn from the sentences.

    Raises:
        ConfigError: a name, a key or a value is wrong.
        ValueError: a file that it names cannot be used.
    """
    return _choose_text_encoder(spec)(sentences=sentences, seed=seed)


def learns(spec: Mapping[str, Any]) -> bool:
    """Return whether the encoder of a ``text_encoder`` section learns from sentences."""
    kind = find_part("text_encoder.name", str(spec.get("name")), TEXT_ENCODERS)
    return bool(getattr(kind, "learns", False))


def _without_train(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what says where a language model goes, and is no argument of it."""
    is_ours = spec.get("name") == "hf"
    return {key: value for key, value in spec.items() if not (is_ours and key == "train")}


def _choose_text_encoder(spec: Mapping[str, Any]) -> Callable[..., Any]:
    spec = _without_train(spec)
    if spec.get("name") in AUTO:  # its keys are checked; it is settled before it is built
        return choose("text_encoder", spec, AUTO)
    given = ["sentences", "seed"]
    try:
        is_learning = learns(spec)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if not is_learning:
        build = choose("text_encoder", spec, TEXT_ENCODERS, given)
        return lambda sentences, seed: build()
    kind = find_part("text_encoder.name", spec["name"], TEXT_ENCODERS)
    return choose("text_encoder", spec, {spec["name"]: kind.train}, given)
