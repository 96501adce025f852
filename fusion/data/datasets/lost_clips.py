"""Clips of which there is nothing to see or hear: of missing videos, or after a video's end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fusion.data.captions.table import Caption
from fusion.data.features.problems import judge, name_some
from fusion.data.features.readers import Reader, seconds_of
from fusion.words import number_of


def without_lost(
    captions: Sequence[Caption], reader: Reader, place: str, file: Path, bad: str, most: float
) -> list[Caption]:
    """Name the clips that are lost and leave them out, or those of them that have no text.

    Args:
        captions: of the clips.
        reader: the features.
        place: where these are, for the message.
        file: where the captions are, for the message.
        bad: what becomes of lost clips, one of :data:`fusion.data.features.problems.POLICIES`.
        most: the share of clips that may be lost.

    Raises:
        ValueError: more are, or none is left.
    """
    videos = dict.fromkeys(caption.video for caption in captions)
    absent = {video: None for video in videos if video not in reader.videos}
    seconds = {video: seconds_of(reader, video) for video in videos if video not in absent}
    late = [c for c in captions if c.video in seconds and 0 < seconds[c.video] <= c.start]
    of_absent = sum(caption.video in absent for caption in captions)
    if not absent and not late:
        return list(captions)
    parts = []
    if absent:
        parts.append(
            f"{of_absent} of {len(captions)} clips are of {number_of(len(absent), 'video')} that"
            f" {place} does not have ({name_some(list(absent))})"
        )
    if late:
        names = [f"{c.name}, features end at {seconds[c.video]:.2f} s" for c in late]
        parts.append(
            f"{len(late)} of {len(captions)} clips begin after the features of {place} end"
            f" ({name_some(names, '; ')}): a film was cut off, or their times are wrong"
        )
    said = f"{file}: {'; '.join(parts)}"
    judge(said, (of_absent + len(late)) / len(captions), most, bad)
    lost = set(late)
    kept = [
        caption
        for caption in captions
        if (caption.video not in absent and caption not in lost)
        or (bad == "missing" and caption.text)
    ]
    if not kept:
        raise ValueError(f"{said}; no clip is left: name the store of these videos")
    return kept
