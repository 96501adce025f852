"""From a YAML file to objects: bases, overrides, and errors that name the right key.

A section of a config says what to build (``name:``) and with which arguments. It is checked against
the signature of the class or function, before anything slow begins.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fusion.parts import find_part, nearest
from fusion.recipes import read_layers
from fusion.typed import check_numbers, expand_all, read_override, variable_meant
from fusion.value_types import hints_of, wanted_instead
from fusion.words import OneLineError

Section = Mapping[str, Any]


@dataclasses.dataclass
class TopLevel:
    """The top-level keys of a config, with their defaults.

    ``max_clips`` takes only the first clips of each split, for a trial. ``max_unknown`` is the
    share of a split's texts that may hold no word that the text encoder knows.
    """

    output: str
    data: Section
    model: Section
    loss: Section
    trainer: Section
    evaluation: Section
    text_encoder: Section | None = None
    task: str = "retrieval"
    seed: int = 0
    resume: bool = False
    overwrite: bool = False
    data_root: str | None = None
    init: str | None = None
    max_clips: int | None = None
    max_unknown: float = 0.5
    trust: bool = False


KEYS = dataclasses.fields(TopLevel)
_TEXTS = [key.name for key in KEYS if "str" in str(key.type)]
SECTIONS = ("data", "text_encoder", "model", "loss", "trainer", "evaluation")

_STARRED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class ConfigError(OneLineError):
    """A config that cannot be used."""


def load_config(
    path: str | Path,
    overrides: Iterable[str] = (),
    trained: Section | None = None,
    own: bool = True,
) -> dict[str, Any]:
    """Read a config: its ``base`` first, then the file, then the overrides.

    A key that is not given keeps the value of the base. A section with another ``name`` replaces
    the whole section of the base.

    Args:
        path: YAML file or recipe. ``base: other.yaml`` in it is relative to the file itself, or
            a recipe.
        overrides: changes such as ``trainer.epochs=1``; see :func:`fusion.typed.read_value`.
            ``base=CONFIG`` puts the file on another base than its own.
        trained: the config of a trained model. A file without ``model`` is about an evaluation, and
            what it leaves out is as there.
        own: the config is the user's, and not one that a run wrote: paths are written in full, see
            :func:`fusion.typed.expand`.

    Returns:
        Nested dicts and lists, interpolations resolved.

    Raises:
        ConfigError: the file is missing or no YAML, its bases form a circle, or a top-level key is
            unknown or missing.
    """
    try:
        layers, overrides = _read_layers(path, overrides)
        if not own:
            _check_plain(layers, path)
        merged = functools.reduce(_merge, layers)
        given = list(merged.keys())  # also those that are left to the user
        defaults = {k.name: k.default for k in KEYS if k.default is not dataclasses.MISSING}
        if trained is not None and "model" not in given:
            defaults |= trained
        rest = OmegaConf.create({k: v for k, v in defaults.items() if k not in given})
        merged = _merge(_merge(rest, merged), _dotlist(overrides))
        _check_given(merged, path)
        config = _to_dict(merged, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path}: {_first_line(error)}{variable_meant(error)}") from None
    except TypeError as error:  # a list over a mapping
        raise ConfigError(f"{path}: {_first_line(error)} (a list and a mapping)") from None
    return _checked(config, path, own)


def changed_keys(section: str, path: str | Path, overrides: Iterable[str] = ()) -> list[str]:
    """List the keys of a section that a config changes, joined by dots: ``modalities.video.dim``.

    A file that gives the section another ``name`` than its base says a whole section. Changes are
    the keys of the files above it, and those of the overrides.
    """
    keys: dict[str, None] = {}
    before = None
    layers, overrides = _read_layers(path, overrides)
    for layer in layers:
        own = _to_dict(layer).get(section) or {}
        if (name := own.get("name", before)) != before:
            keys, before = {}, name
        else:
            keys |= dict.fromkeys(flatten(own))
    typed = _to_dict(_dotlist(overrides)).get(section) or {}
    return [*(keys | dict.fromkeys(flatten(typed)))]


def check(
    section: str,
    values: Any,
    target: Callable[..., Any],
    given: Sequence[str] = (),
    further: Sequence[str] = (),
) -> None:
    """Check a section of a config against the signature of ``target``, which is called with it.

    ``values`` is without ``name``; ``section`` is empty for top-level keys. The program itself
    passes the arguments ``given``; a config cannot set them. ``further`` are keys that are read
    elsewhere, and that a misspelt key may have meant.

    Raises:
        ConfigError: a key is unknown or missing, or a value has the wrong type.
    """
    parameters = dict(inspect.signature(target).parameters)
    kinds = {parameter.kind for parameter in parameters.values()}
    for name in [n for n, parameter in parameters.items() if parameter.kind in _STARRED]:
        del parameters[name]
    names = [name for name in parameters if name not in given and name != "self"]
    prefix = f"{section}." if section else ""
    takes_any = inspect.Parameter.VAR_KEYWORD in kinds
    hints = hints_of(target)
    for key, value in values.items():
        if key not in names and (key in given or not takes_any):
            known = [*names, *further]
            raise ConfigError(f"{prefix}{key} is unknown{nearest(key, known)}")
        if (wanted := wanted_instead(value, hints.get(key, Any))) is not None:
            text = value if isinstance(value, int | float) else _in_braces(value)
            quoted = f"; if it is a text, write '{prefix}{key}=\"{text}\"'"
            way = quoted if "text" in wanted and text is not None else ""
            raise ConfigError(f"{prefix}{key} must be {wanted}; got {value!r}{way}")
    for name in names:
        if parameters[name].default is inspect.Parameter.empty and name not in values:
            raise ConfigError(f"{prefix}{name} is missing; add it to the config")


def _in_braces(value: Any) -> str | None:
    """Return what YAML has read as keys without values, such as ``{answer}``; None: no such."""
    if isinstance(value, Mapping) and value and not any(v is not None for v in value.values()):
        return f"{{{', '.join(map(str, value))}}}"
    return None


def choose(
    section: str,
    values: Mapping[str, Any],
    table: Mapping[str, Any],
    given: Sequence[str] = (),
    further: Sequence[str] = (),
) -> Callable[..., Any]:
    """Find what a section names, in a table or by its import path, and check its arguments.

    Returns the part with the section's values bound to it, see :func:`fusion.parts.find_part`, but
    not those of the keys ``further``.

    Raises:
        ConfigError: the name is missing or unknown, or an argument is wrong (:func:`check`).
    """
    arguments = {str(k): v for k, v in values.items() if k != "name" and k not in further}
    name = str(values.get("name"))
    try:
        part = find_part(f"{section}.name", name, table)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    check(section, arguments, part, given, further)

    def build(**more: Any) -> Any:
        try:
            built = part(**arguments, **more)
        except ValueError as error:
            # A part says what is wrong with an argument, and not in which section that is.
            if type(error) is ValueError and str(error).partition(" ")[0] in arguments:
                raise ConfigError(f"{section}.{error}") from None
            raise
        except (TypeError, KeyError, RuntimeError, MemoryError) as error:
            # a nested value of the wrong kind, or tensors that are too large
            raise ConfigError(
                f"{section} ({name}) cannot be built: {_first_line(error)}"
            ) from error
        if built is None:
            raise ConfigError(f"{section}: {name} returned None; it must return what it makes")
        return built

    return build


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Join nested keys by dots: ``{"a": {"b": 1}}`` -> ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def merge(section: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Change some keys of a section, at any depth."""
    return _to_dict(OmegaConf.merge(dict(section), dict(changes)))


def change_config(config: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Apply overrides such as ``data.protocol=all``; a ConfigError names a wrong one."""
    changed = _to_dict(_merge(OmegaConf.create(dict(config)), _dotlist(overrides)))
    return _checked(changed, "the config", own=False)


def to_yaml(config: Mapping[str, Any]) -> str:
    """Write a config so that :func:`load_config` reads it back."""
    return yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)


def _to_dict(config: Any, **options: Any) -> dict[str, Any]:
    values = OmegaConf.to_container(config, **options)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _read_layers(path: str | Path, overrides: Iterable[str]) -> tuple[list[Any], list[str]]:
    """Read a config and its bases, the first of them first; give also the overrides of keys."""
    words = list(overrides)
    bases = [word for word in words if word.partition("=")[0].strip() == "base"]
    base = bases[-1].partition("=")[2].strip() if bases else None
    try:
        return read_layers(path, base), [word for word in words if word not in bases]
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _merge(base: Any, changes: Any) -> Any:
    """Merge changes into a config; a section with another name replaces the old section."""
    kept = base.copy()
    for section in SECTIONS:
        name, before = (OmegaConf.select(c, f"{section}.name") for c in (changes, base))
        if name is not None and before is not None and name != before:
            del kept[section]
    modalities = OmegaConf.select(changes, "model.modalities")
    specs: Any = modalities if isinstance(modalities, DictConfig) else {}
    for name, spec in specs.items():
        _drop_replaced(OmegaConf.select(kept, f"model.modalities.{name}"), spec)
    return OmegaConf.merge(kept, changes)


def _drop_replaced(before: Any, spec: Any) -> None:
    """Drop of a modality what its change replaces: an encoder by another, or by ``dim``."""
    if not isinstance(before, DictConfig) or not isinstance(spec, DictConfig):
        return
    named = OmegaConf.select(spec, "encoder.name")
    if "dim" in spec or named not in (None, OmegaConf.select(before, "encoder.name")):
        before.pop("encoder", None)
    if "encoder" in spec:
        before.pop("dim", None)


def _dotlist(overrides: Iterable[str]) -> Any:
    changes = OmegaConf.create()
    for override in overrides:
        try:
            OmegaConf.update(changes, *read_override(override, _TEXTS))
        except ValueError as error:
            raise ConfigError(_first_line(error)) from None
    return changes


def _check_plain(layers: Sequence[Any], path: str | Path) -> None:
    """Check that a config that a run wrote asks for nothing of this machine.

    It may come from anybody: its values are plain.
    """
    values = [item for layer in layers for item in flatten(_to_dict(layer)).items()]
    for key, value in values:
        if "${" in str(value) and ":" in str(value).partition("${")[2].partition("}")[0]:
            raise ConfigError(
                f"{path}: {key} asks for {value}, as no config of a run does: it could hand over"
                " what only this machine knows"
            )


def _check_given(config: Any, path: str | Path) -> None:
    """Check that the user has given every ``???``, also those in ``${data_root}/x``."""
    if left := [key for key, value in flatten(_to_dict(config)).items() if value == "???"]:
        values = " ".join(f"{key}=VALUE" for key in left)
        raise ConfigError(f"{path} leaves {' and '.join(left)} to you; add {values} to the command")


def _checked(config: dict[str, Any], path: str | Path, own: bool = True) -> dict[str, Any]:
    """Check the top-level keys of a config, and all numbers; of an own one, write paths in full."""
    try:
        check("", config, TopLevel)
        check_numbers(config)
        return expand_all(config) if own else config
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
