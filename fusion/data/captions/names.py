"""Which video a name means: with or without its folder and its ending."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from os.path import splitext
from pathlib import Path

from fusion.data.captions.table import Caption, CaptionError

# What a folder is searched for; a file that is named itself may be called anything.
ENDINGS = frozenset(
    {".3g2", ".3gp", ".asf", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"}
    | {".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".ogv", ".ts", ".vob", ".webm", ".wmv"}
    | {".aac", ".ac3", ".aif", ".aiff", ".au", ".caf", ".flac", ".m4a", ".mka", ".mp3", ".ogg"}
    | {".opus", ".wav", ".wma"}
)

Owners = Mapping[str, Sequence[str]]


def names_of(video: str) -> set[str]:
    """Name a video in all the ways that others may: with and without folder and ending."""
    base = video.rpartition("/")[2]
    return {video, base, splitext(video)[0], splitext(base)[0]}


def find_owners(videos: Iterable[str], wanted: Iterable[str] | None = None) -> Owners:
    """List videos by each name that they may be called.

    Args:
        videos: their full names.
        wanted: the names that will be looked up, where the videos are many; None: any.
    """
    looked_up: Collection[str] | None = None
    if wanted is not None:
        looked_up = {other for name in wanted for other in (name, _without_ending(name))}
    owners: dict[str, list[str]] = defaultdict(list)
    for video in dict.fromkeys(videos):
        for name in names_of(video):
            if looked_up is None or name in looked_up:
                owners[name].append(video)
    return dict(owners)


def owner_of(name: str, owners: Owners, source: str | Path) -> str | None:
    """Find the video that a name means, None if there is none.

    A name with the ending of a media file is also that of a video known without one.

    Args:
        name: as it stands in a file.
        owners: see :func:`find_owners`.
        source: what an error begins with.

    Raises:
        CaptionError: it may mean several.
    """
    found = owners.get(name, [])
    if name in found:
        return name
    if not found:
        bare = _without_ending(name)
        found = [video for video in owners.get(bare, []) if _without_ending(video) == video]
    if len(found) > 1:
        raise CaptionError(f"{source}: {name} may be {' or '.join(found)}; name it in full")
    return found[0] if found else None


def match_captions(
    captions: Sequence[Caption], videos: Collection[str], source: str | Path
) -> list[Caption]:
    """Give captions the full names of their videos; those of no video keep their own.

    Args:
        captions: as a file names their videos.
        videos: full names, where ``in`` is quick.
        source: what an error begins with.

    Raises:
        CaptionError: a name may mean several videos.
    """
    names = dict.fromkeys(caption.video for caption in captions)
    short = [name for name in names if name not in videos]
    if not short:
        return list(captions)
    owners = find_owners(videos, short)
    full = {name: owner_of(name, owners, source) or name for name in short}
    return [
        dataclasses.replace(caption, video=full[caption.video])
        if caption.video in full
        else caption
        for caption in captions
    ]


def _without_ending(name: str) -> str:
    root, ending = splitext(name)
    return root if ending.lower() in ENDINGS else name
