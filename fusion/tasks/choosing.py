"""What tasks have in common whose model scores K choices for an item, such as answers or classes.

The loss of such a task is a mean over items, which do not depend on each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from torch import nn

from fusion.config import ConfigError
from fusion.evaluation.answers import ALL
from fusion.interfaces import Loss
from fusion.losses import LOSSES
from fusion.parts import is_own
from fusion.tokens import Batch
from fusion.training.settings import LAST


class Choosing:
    """The part of :class:`fusion.tasks.task.Task` that does not depend on what is chosen.

    Attributes:
        name: of the task.
        model: its class, and its name in configs.
        loss: name of the loss in configs; an own one may be taken, too.
        metrics: those that ``trainer.best`` can be.
        items: attribute that a data set for this task has, and what it has in words.
        sets: the data sets for it, by name.
    """

    name: ClassVar[str]
    model: ClassVar[tuple[type[nn.Module], str]]
    loss: ClassVar[str]
    metrics: ClassVar[Sequence[str]]
    items: ClassVar[tuple[str, str]]
    sets: ClassVar[Mapping[str, Any]]

    config: Mapping[str, Any]
    builders: Mapping[str, Callable[..., Any]]

    def check(self, model: Any, loss: Loss, best: str | None) -> None:
        """Check that model and loss are of the task, and that ``trainer.best`` can be measured."""
        kind, name = self.model
        if not isinstance(model, kind):
            raise ConfigError(f"task {self.name} needs model.name: {name}")
        others = tuple(made for other, made in LOSSES.items() if other != self.loss)
        if loss.compares_clips or isinstance(loss, others):
            raise ConfigError(f"task {self.name} needs loss.name: {self.loss}")
        known = [f"{ALL} {metric}" for metric in self.metrics]
        if best not in {None, LAST, *known}:
            raise ConfigError(f"trainer.best: unknown {best!r}; choose from {', '.join(known)}")

    def open_data(self) -> None:
        """Open the data set; what is built in is rendered."""
        (attribute, what), name = self.items, self.config["data"].get("name")
        # Ours are known before they are opened: rendering one for nothing takes a minute.
        source: Any = self.builders["data"]() if name in self.sets or is_own(name) else None
        if not hasattr(source, attribute):
            raise ConfigError(
                f"data.name: {name!r} has no {what}; choose from {', '.join(self.sets)}"
            )
        self.source: Any = source
        self.source.max_clips = self.config["max_clips"]

    def extract(self) -> None:
        """Read images and films that are kept in the cache, and compute missing features."""
        self.source.extract()

    @property
    def splits(self) -> Sequence[str]:
        """Names of the splits of the data."""
        names: Sequence[str] = self.source.splits
        return names

    def recipe(self) -> Mapping[str, Any] | None:
        """Say how an item's input is made."""
        recipe: Mapping[str, Any] | None = self.source.recipe()
        return recipe

    def arguments(self, loss: Any) -> Callable[[Batch], Mapping[str, Any]]:
        """Pass on the seeds of the items."""
        return lambda clips: {"seeds": clips.seeds}
