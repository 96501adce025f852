"""The notation ``t``, ``va``, ``t|va``, ``t->v+a`` and its meaning.

* A *modality* has a name (``text``) and a letter, the first of its name (``t``).
* A *combination* is a set of modalities, written as its letters: ``va``.
* A *term* is a pair of disjoint combinations that the loss pulls together: ``t|va``.
* A *direction* goes from the combination of the query to the combination of the gallery:
  ``t->va``. In a direction, ``v+a`` is the average of two single embeddings (late average).

The config says which modalities there are, in any number.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable

ORDER = ("text", "video", "audio")  # of the letters in a combination; other names follow, sorted


def letters_of(names: Iterable[str]) -> dict[str, str]:
    """Map the letter of each modality to its name, in the order of letters in a combination.

    Two names with the same letter, or none, are a ValueError.
    """
    letters: dict[str, str] = {}
    for name in sorted(names, key=lambda n: (ORDER.index(n) if n in ORDER else len(ORDER), n)):
        if not name or not name[0].isalpha():
            raise ValueError(f"a modality's name must begin with a letter; got {name!r}")
        if name[0] in letters:
            raise ValueError(
                f"modalities {letters[name[0]]!r} and {name!r} have the same letter; rename one"
            )
        letters[name[0]] = name
    if not letters:
        raise ValueError("name at least one modality, such as text, video or audio")
    return letters


def members(combination: str, names: Iterable[str]) -> tuple[str, ...]:
    """Return the modalities of a combination: ``"va"`` or ``"av"`` -> video, audio.

    A letter that is unknown or given twice, or none, is a ValueError.
    """
    letters = letters_of(names)
    for letter in combination:
        if letter not in letters:
            known = ", ".join(f"{k} ({v})" for k, v in letters.items())
            raise ValueError(
                f"combination {combination!r} names an unknown modality {letter!r};"
                f" choose from {known}"
            )
    if len(set(combination)) != len(combination) or not combination:
        raise ValueError(
            f"combination {combination!r} must name each modality once, and at least one"
        )
    return tuple(name for letter, name in letters.items() if letter in combination)


def spell(modalities: Iterable[str]) -> str:
    """Write a combination: video, audio -> ``"va"``."""
    return "".join(name[0] for name in modalities)


def parse_term(term: str, names: Iterable[str]) -> tuple[str, str]:
    """Split ``"t|va"`` into its two combinations.

    Anything but two combinations, or an overlap, is a ValueError.
    """
    parts = term.split("|")
    if len(parts) != 2:
        raise ValueError(
            f"term {term!r} must be two combinations with | between them, such as t|va"
        )
    try:
        left, right = (members(part, names) for part in parts)
    except ValueError as error:
        raise ValueError(f"term {term!r}: {error}") from None
    if shared := set(left) & set(right):
        raise ValueError(
            f"term {term!r} pairs overlapping combinations:"
            f" {', '.join(sorted(shared))} is on both sides"
        )
    return spell(left), spell(right)


@dataclasses.dataclass(frozen=True)
class Direction:
    """From a query to a gallery: ``("t",)`` to ``("v", "a")``, which is ``v+a``, the average."""

    query: tuple[str, ...]
    gallery: tuple[str, ...]

    def __str__(self) -> str:
        return f"{'+'.join(self.query)}->{'+'.join(self.gallery)}"


def parse_direction(text: str, names: Iterable[str]) -> Direction:
    """Read ``t->va``, or ``t->v+a``.

    Anything but two sides of known modalities, or an overlap, is a ValueError.
    """
    names = list(names)
    sides = [tuple(side.strip() for side in half.split("+")) for half in text.split("->")]
    if len(sides) != 2:
        raise ValueError(
            f"direction {text!r} must be two combinations with -> between them, such as t->va"
        )
    try:
        parts = [tuple(spell(members(part, names)) for part in side) for side in sides]
        query, gallery = (members("".join(side), names) for side in parts)
    except ValueError as error:
        raise ValueError(f"direction {text!r}: {error}") from None
    if shared := set(query) & set(gallery):
        raise ValueError(f"direction {text!r} has {', '.join(sorted(shared))} on both sides")
    return Direction(*parts)


def directions(names: Iterable[str]) -> list[Direction]:
    """List every direction between combinations that share no modality, then the late averages.

    For three modalities: the twelve of the EAO paper (arXiv:2112.04446), and six late averages.
    """
    letters = list(letters_of(names))
    combinations = [
        "".join(c) for n in range(1, len(letters)) for c in itertools.combinations(letters, n)
    ]
    pairs = [(a, b) for a, b in itertools.product(combinations, repeat=2) if not set(a) & set(b)]
    pairs.sort(key=lambda pair: (len(pair[0] + pair[1]), len(pair[0])))
    fused = [Direction((a,), (b,)) for a, b in pairs]
    late = [Direction(tuple(a), tuple(b)) for a, b in pairs if len(a) + len(b) > 2]
    return fused + late
