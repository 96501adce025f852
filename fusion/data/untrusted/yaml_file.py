"""Read YAML of others: plain values alone, no larger in memory than the file says."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from fusion.data.untrusted.reading import read_bytes

MOST_YAML = 2**22  # bytes; the largest recipe has some thousand
MOST_ALIASES = 100  # each may repeat all before it, which doubles what there is


def read_config(path: Path) -> Any:
    """Read a config as OmegaConf does: a DictConfig or a ListConfig, nothing in it resolved.

    Raises:
        ValueError: it is too large or too deeply nested, or holds a single value.
        yaml.YAMLError: it is no YAML, has objects, or repeats itself too often (OmegaConf counts).
        OSError: it cannot be read.
    """
    text = read_bytes(path, MOST_YAML).decode("utf-8")
    try:
        return OmegaConf.load(io.StringIO(text))
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None


def read_yaml(path: Path) -> Any:
    """Read lists, dicts, texts and numbers; raises as :func:`read_config` does."""
    text = read_bytes(path, MOST_YAML).decode("utf-8")
    try:
        if "*" in text and "&" in text:
            events = yaml.parse(text, yaml.SafeLoader)
            if sum(isinstance(event, yaml.AliasEvent) for event in events) > MOST_ALIASES:
                raise ValueError(f"it repeats parts of itself more than {MOST_ALIASES} times")
        return yaml.safe_load(text)
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None
