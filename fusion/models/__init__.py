"""Models and encoders, by the names that configs use."""

from fusion.models.eao import EAO

MODELS = {"eao": EAO}

__all__ = ["EAO", "MODELS"]
