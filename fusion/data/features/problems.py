"""Features that cannot be used: found, counted and named, never zeros posing as data."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

logger = logging.getLogger(__name__)

POLICIES = ("missing", "leave_out")
NAMED = 5  # clips, or videos, that a message names


@dataclasses.dataclass(frozen=True)
class Problem:
    """One clip's features of one kind that cannot be used.

    Attributes:
        clip: its name.
        what: the features, such as ``2d``.
        why: in a few words.
    """

    clip: str
    what: str
    why: str


def find_problem(values: Any, width: int | None) -> str | None:
    """Say in a few words what is wrong with features, None if nothing is.

    Args:
        values: (rows, width) in theory, at least one row.
        width: columns that are expected; None for any.
    """
    if problem := find_wrong_shape(values, width):
        return problem
    values = np.asarray(values)
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        return f"{bad} of {values.size} values are not finite"
    return None


def find_wrong_shape(values: Any, width: int | None) -> str | None:
    """Say the same without looking at the numbers, see :func:`find_problem`."""
    if isinstance(values, torch.Tensor):
        values = values.numpy()
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu":
        return f"a {type(values).__name__}, not numbers in an array"
    if values.ndim != 2:
        return f"{values.ndim} dimensions instead of rows of features"
    if not len(values):
        return "no rows"
    if width is not None and values.shape[1] != width:
        shape = f"{values.shape[0]} x {values.shape[1]}"
        turned = " (transposed)" if values.shape[0] == width else ""
        return f"{shape} instead of rows of {width}{turned}"
    return None


def common_width(shapes: Iterable[tuple[int, ...]]) -> int | None:
    """Find the width that most matrices have, None if there is no matrix."""
    widths = Counter(shape[1] for shape in shapes if len(shape) == 2)
    return widths.most_common(1)[0][0] if widths else None


def report(problems: Sequence[Problem], num_clips: int, file: str, bad: str, most: float) -> None:
    """Tell the user about a data set's problems.

    Args:
        problems: of all clips.
        num_clips: of the data set.
        file: where it comes from.
        bad: what is done to the clips, one of ``POLICIES``.
        most: the share of clips that may have a problem.

    Raises:
        ValueError: more have.
    """
    clips = list(dict.fromkeys(problem.clip for problem in problems))
    if not clips:
        return
    kinds = Counter(f"{p.what}: {p.why}" for p in problems)
    first = "; ".join(f"{count} x {kind}" for kind, count in kinds.most_common(3))
    said = (
        f"{file}: {len(clips)} of {num_clips} clips have features that cannot be used"
        f" ({name_some(clips)}): {first}"
    )
    judge(said, len(clips) / num_clips, most, bad)


def check_max_bad(share: float) -> None:
    """Refuse what is no share, such as 50 where 50 % is meant.

    Raises:
        ValueError: it is not between 0 and 1.
    """
    if not 0 <= share <= 1:
        raise ValueError(
            f"data.max_bad is {share:g}; it is a share and must be between 0 and 1, such as 0.05"
            " for 5 %"
        )


def judge(said: str, share: float, most: float, bad: str) -> None:
    """Warn of what cannot be used, or refuse it where it is too much.

    Args:
        said: what it is.
        share: how much of all that is.
        most: how much may be.
        bad: what is done to it, one of ``POLICIES``.

    Raises:
        ValueError: it is more.
    """
    if share > most:
        raise ValueError(
            f"{said}; that is more than data.max_bad ({most:g}) allows: mend the file or raise it"
        )
    warn(f"{said}; {'left out' if bad == 'leave_out' else 'taken as missing'}")


def warn(said: str) -> None:
    """Warn, in the first of several processes alone: all read the same files."""
    if int(os.environ.get("RANK") or 0) == 0:
        logger.warning("%s", said)


def name_some(names: Sequence[str], between: str = ", ") -> str:
    """Name the first few."""
    return between.join([*names[:NAMED], *(["…"] if len(names) > NAMED else [])])
