"""From clips to a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fusion.tokens import Batch, Tokens


def collate(clips: Sequence[Mapping[str, Any]]) -> Batch:
    """Put clips end to end, without padding.

    Args:
        clips: dicts of ``id`` and, for each modality, (L, D) features; L = 0 where it is missing.
            A clip may lack every modality, when its words are all unknown: no term and no
            direction counts it, and whoever made it has named it.

    Returns:
        A batch of the modalities in the order of the first clip.

    Raises:
        ValueError: a clip's features are not as wide as those of the first.
    """
    modalities = [name for name in clips[0] if name != "id"]
    for clip in clips:
        for name in modalities:
            expected, got = clips[0][name].shape[1:], clip[name].shape[1:]
            if got != expected:
                raise ValueError(
                    f"clip {clip['id']!r} has {name} features of width {list(got)},"
                    f" but {clips[0]['id']!r} has {list(expected)}"
                )
    inputs = {name: Tokens.pack([clip[name] for clip in clips]) for name in modalities}
    return Batch(tuple(clip["id"] for clip in clips), inputs)
