"""fusion: one model that embeds any combination of text, audio and video into one space."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusion.inference.loading import load
    from fusion.inference.model import Model, Windows
    from fusion.search.index import Hit, Index
    from fusion.tokens import Tokens

__version__ = "0.1.0"
__all__ = ["Hit", "Index", "Model", "Tokens", "Windows", "__version__", "load"]

_HOMES = {  # imported when they are first used: torch takes seconds
    "Hit": "fusion.search.index",
    "Index": "fusion.search.index",
    "Model": "fusion.inference.model",
    "Windows": "fusion.inference.model",
    "load": "fusion.inference.loading",
    "Tokens": "fusion.tokens",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"fusion has no {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
