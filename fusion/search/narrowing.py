"""Which combinations and which films of an index a question is about."""

from __future__ import annotations

from collections.abc import Sequence

from fusion.modalities import members, spell
from fusion.search.database import SearchError
from fusion.search.snapshot import Snapshot


def heard_and_seen(known: Sequence[str]) -> list[str]:
    """Leave out combinations with text, unless there are no others: captions are optional."""
    return [c for c in known if "t" not in c] or list(known)


def spell_as(snapshot: Snapshot, within: Sequence[str]) -> list[str]:
    """Spell combinations as the index does; SearchError: it does not have one of them."""
    known = snapshot.combinations
    asked = [spell(members(c, snapshot.modalities)) for c in within]
    if unknown := [c for c in asked if c not in known]:
        raise SearchError(
            f"the index has no combination {unknown[0]!r}; choose from {', '.join(known)}"
        )
    return asked


def films_named(snapshot: Snapshot, film: str | int) -> tuple[int, ...]:
    """Return the numbers of the films that a question is about."""
    if isinstance(film, str):
        return tuple(number for number, name in snapshot.names.items() if film in name)
    if film not in snapshot.names:
        raise SearchError(f"the index has no film {film}")
    return (film,)
