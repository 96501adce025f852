"""The versions of the built-in corpus."""

from __future__ import annotations

from fusion.data.demo import cutaways, independent
from fusion.data.demo.plan import Film, Recipe

VERSION = cutaways.RECIPE.version
RECIPES: dict[int, Recipe] = {m.RECIPE.version: m.RECIPE for m in (independent, cutaways)}


def plan_corpus(size: int | None = None, version: int = VERSION) -> list[Film]:
    """Draw all films: attributes, sentence, shots and missing modalities of each scene.

    ``size`` is the number of training films; the other splits have as many, at most their usual
    number; None: the usual number of each. Raises ValueError if there are not so many films, or no
    such version.
    """
    if version not in RECIPES:
        known = ", ".join(map(str, RECIPES))
        raise ValueError(f"data.version is {version!r}; choose from {known}")
    module = independent if version == independent.RECIPE.version else cutaways
    return module.plan(size)
