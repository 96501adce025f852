"""What may change in the config of a run that goes on, what may not, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import yaml

from fusion.config import ConfigError, flatten, to_yaml

# These keys do not change the result, or only add to it.
NO_EFFECT = (
    *("output", "resume", "overwrite", "trust", "max_unknown"),
    *("trainer.chunk_size", "trainer.num_workers", "trainer.num_processes", "trainer.log_every"),
    *("trainer.save_every", "trainer.save_every_minutes", "trainer.keep_last"),
    *("trainer.overlap", "trainer.timeout_minutes"),
    *("evaluation.batch_size", "evaluation.missing", "evaluation.missing_direction"),
)
# These keys may change. A name that ends with a dot is a section. A note says what a change means.
FREE: Mapping[str, str] = {
    **dict.fromkeys((*NO_EFFECT, "data_root", "trainer.patience", "trainer.report_split"), ""),
    "trainer.mixed_precision": "",  # the checkpoint says what auto or the launcher meant
    "trainer.epochs": "the learning rate follows the schedule of the new number",
    "trainer.schedule": "the learning rate changes at once",
    "trainer.milestones": "the learning rate changes at once",
    "evaluation.": "earlier epochs were evaluated in the old way",
}
# Why other keys may not, by the beginning of their names; the longest that fits counts.
REASONS: Mapping[str, str] = {
    "seed": "other batches",
    "data.": "other clips or features",
    "max_clips": "other clips",
    "task": "another task",
    "init": "other weights at the beginning",
    "text_encoder.": "other vectors of the same words",
    "model.": "other weights",
    "loss.": "another objective",
    "trainer.": "another course of the training",
    "trainer.batch_size": "other negatives in each step",
    "trainer.best": "scores that cannot be compared",
    "": "another run",
}


class Change(NamedTuple):
    """A key whose value differs between the config of a run and the one to go on with."""

    key: str
    old: Any
    new: Any

    @property
    def note(self) -> str | None:
        """What the change means; empty: nothing of note; None: it is not allowed."""
        return FREE.get(_nearest(FREE, self.key)) if _nearest(FREE, self.key) else None

    def __str__(self) -> str:
        why = REASONS[_nearest(REASONS, self.key)] if self.note is None else self.note
        return f"{self.key}: {self.old} -> {self.new}{f' ({why})' if why else ''}"


def find_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """List all keys that differ, whatever their sections.

    Paths below ``data_root`` are the same if both configs have them below their own.
    """
    before, after = (_flat(config) for config in (old, new))
    keys = sorted(before.keys() | after.keys())
    pairs = ((key, before.get(key), after.get(key)) for key in keys)
    return [Change(key, a, b) for key, a, b in pairs if _plain(a, old) != _plain(b, new)]


def check_changes(
    old: Mapping[str, Any], new: Mapping[str, Any], what: str, way: str
) -> list[Change]:
    """Return the changes between two configs, which all are allowed.

    ConfigError: some are not; one line says of each change whether and why. ``what`` was made with
    the old config, and ``way`` is what the user can do.
    """
    changes = find_changes(old, new)
    refused = [str(change) for change in changes if change.note is None]
    if not refused:
        return changes
    allowed = [str(change) for change in changes if change.note is not None]
    also = f"; these may change: {', '.join(allowed)}" if allowed else ""
    raise ConfigError(
        f"{what} was begun with another config and cannot go on with {', '.join(refused)}; {way},"
        f" or begin another run by output=DIR{also}"
    )


def describe_changes(changes: list[Change]) -> str | None:
    """Say in one line what a run goes on with; None: nothing of note has changed."""
    quiet = {"output", "resume", "overwrite", "trust"}
    said = [str(change) for change in changes if change.key not in quiet]
    return f"going on with {', '.join(said)}" if said else None


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    return flatten(yaml.safe_load(to_yaml(config)))  # numbers as a file gives them


def _plain(value: Any, config: Mapping[str, Any]) -> Any:
    """Write a path below ``data_root`` without it."""
    root = config.get("data_root")
    if isinstance(value, list):
        return [_plain(part, config) for part in value]
    if isinstance(root, str) and isinstance(value, str) and value.startswith(f"{root}/"):
        return "${data_root}" + value.removeprefix(root)
    return value


def _nearest(names: Mapping[str, str], key: str) -> str:
    """Return the longest name that is the key or a section that has it; "": there is none."""
    section = f"{key}."  # an empty section is a key itself
    fitting = (n for n in names if n == key or (n.endswith(".") and section.startswith(n)))
    return max(fitting, key=len, default="")
