"""What a study trains: a recipe with each subset of some terms, or with weights of them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from fusion.config import ConfigError, check
from fusion.data.untrusted.yaml_file import read_yaml
from fusion.modalities import Direction, parse_term
from fusion.recipes import find_config
from fusion.training.settings import LAST

OWN = ("terms", "seeds", "output", "weights", "budget")  # keys that the command line may change
MOST_COMPARED = 20_000  # combinations of weights among which a design chooses


class Setting(NamedTuple):
    """Weights of the terms of one training; 0 leaves a term out."""

    weights: tuple[float, ...]  # in the order of the plan's terms

    def names(self, terms: Sequence[str]) -> tuple[str, ...]:
        """Return the terms that are trained."""
        return tuple(term for term, weight in zip(terms, self.weights, strict=True) if weight)

    def label(self, terms: Sequence[str]) -> str:
        """Name the setting: ``t|v, v|a``, or with weights that are not 1, ``t|v 0.1, v|a``."""
        pairs = zip(terms, self.weights, strict=True)
        return ", ".join(t if w == 1 else f"{t} {w:g}" for t, w in pairs if w)

    def folder(self, terms: Sequence[str]) -> str:
        """Name a folder for it; bars are no letters of a file name on every system."""
        return self.label(terms).replace("|", "~").replace(", ", "_").replace(" ", "=")

    def covers(self, direction: Direction, terms: Sequence[str], names: Sequence[str]) -> bool:
        """Return whether the terms train every modality of a direction."""
        trained = {x for term in self.names(terms) for x in "".join(parse_term(term, names))}
        return set("".join(direction.query + direction.gallery)) <= trained


@dataclasses.dataclass(frozen=True)
class Plan:
    """A study.

    Attributes:
        config: recipe or YAML file that is trained.
        overrides: changes to it.
        terms: of the combinatorial loss; every subset of them is trained.
        seeds: each setting is trained once with each.
        output: folder of the runs and of the result.
        weights: that a term may have, instead of in or out.
        budget: how many settings of weights are trained, far from one another (default: 40).
    """

    config: str
    terms: list[str]
    output: str
    overrides: list[str] = dataclasses.field(default_factory=list)
    seeds: list[int] = dataclasses.field(default_factory=lambda: [0, 1])
    weights: list[float] | None = None
    budget: int | None = None

    def __post_init__(self) -> None:
        if len(self.seeds) != len(set(self.seeds)) or not self.seeds:
            raise ConfigError(f"seeds must be different numbers, at least one; got {self.seeds}")
        if len(self.terms) != len(set(self.terms)) or not 2 <= len(self.terms) <= 10:
            raise ConfigError(f"terms must be 2 to 10 different terms; got {self.terms}")
        if self.budget is not None and (self.weights is None or self.budget < 1):
            raise ConfigError(
                f"budget is the number of settings of weights, at least 1; got {self.budget} with"
                f" weights {self.weights}"
            )
        if bad := [o for o in self.overrides if o.startswith(("loss.terms", "seed=", "output="))]:
            raise ConfigError(f"overrides: {bad[0]} is set by the study itself; leave it out")

    def settings(self) -> list[Setting]:
        """Return what is trained: every subset, or weights that are far from one another."""
        if self.weights is None:
            return subsets(self.terms)
        return spread_out(self.terms, self.weights, self.budget or 40)


def read_plan(path: str | Path, overrides: Sequence[str] = ()) -> Plan:
    """Read a study from a YAML file or by the name of a recipe.

    Args:
        path: of the file, or a name.
        overrides: ``key=value``: a key of the study, such as ``output``, or one of the config that
            is trained.

    Raises:
        ConfigError: the file is missing or no study; one line.
    """
    file = find_config(path)
    try:
        values = read_yaml(file)
    except FileNotFoundError:
        raise ConfigError(f"no study at {file}; begin with a copy of configs/study.yaml") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"{file} is not a YAML file that can be read: {reason}") from None
    if not isinstance(values, Mapping):
        raise ConfigError(f"{file} must hold `key: value` lines, see configs/study.yaml")
    values = {str(key): value for key, value in values.items()}
    try:
        own = [o for o in overrides if o.partition("=")[0] in OWN]
        values |= {key: yaml.safe_load(value) for key, _, value in (o.partition("=") for o in own)}
        check("", values, Plan)
        values["overrides"] = [
            *map(str, values.get("overrides", [])),
            *(o for o in overrides if o not in own),
        ]
        return Plan(**values)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None


def subsets(terms: Sequence[str]) -> list[Setting]:
    """Return every subset of the terms but the empty one, small ones first."""
    every = itertools.product((0.0, 1.0), repeat=len(terms))
    return sorted((Setting(w) for w in every if any(w)), key=lambda s: (sum(s.weights), s.weights))


def spread_out(terms: Sequence[str], levels: Sequence[float], budget: int) -> list[Setting]:
    """Choose weights that are far from one another (a maximin design), the same every time.

    Of weights in the same proportion, which give the same loss, the highest are kept. The first
    setting has all terms at the highest level. Each further one is that whose nearest
    among those before is farthest, by the difference of levels; of several the first.

    Args:
        terms: of the loss.
        levels: weights that a term may have.
        budget: how many settings.

    Raises:
        ConfigError: the levels are no weights, or there are too many combinations.
    """
    values = sorted(set(levels))
    if len(values) < 2 or values[0] < 0:
        raise ConfigError(f"weights must be two or more numbers from 0 on; got {levels}")
    if len(values) ** len(terms) > MOST_COMPARED:
        raise ConfigError(
            f"{len(values)} weights of {len(terms)} terms are {len(values) ** len(terms):,}"
            f" combinations, and at most {MOST_COMPARED:,} are compared; name fewer weights"
        )
    grid = np.array(list(itertools.product(range(len(values)), repeat=len(terms))))
    grid = grid[_one_of_each_loss(np.array(values)[grid])]
    chosen = [len(grid) - 1]
    distance = np.abs(grid - grid[-1]).sum(axis=1)
    while len(chosen) < min(budget, len(grid)):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.abs(grid - grid[chosen[-1]]).sum(axis=1))
    return [Setting(tuple(float(values[i]) for i in grid[place])) for place in chosen]


def _one_of_each_loss(weights: np.ndarray) -> np.ndarray:
    """Return the rows whose weights are not those of a later row times a number, in order."""
    total = weights.sum(axis=1)
    able = np.flatnonzero(total > 0)[::-1]  # the highest first
    shares = (weights[able] / total[able, None]).round(9)
    return np.sort(able[np.unique(shares, axis=0, return_index=True)[1]])


def overrides_of(plan: Plan, setting: Setting, seed: int, folder: Path) -> list[str]:
    """Return the overrides of one training of a study."""
    pairs = zip(plan.terms, setting.weights, strict=True)
    terms = ", ".join(f'"{term}": {weight:g}' for term, weight in pairs)
    changes: dict[str, Any] = {"loss.terms": f"{{{terms}}}", "seed": seed, "resume": "true"}
    # The last epoch counts: a subset may not train the direction that trainer.best names.
    changes |= {"trainer.best": LAST, "output": f'"{folder}"'}
    return [*plan.overrides, *(f"{key}={value}" for key, value in changes.items())]
