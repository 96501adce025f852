"""Which captions, in a file or a folder of files, belong to which video."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from reprlib import repr as short

from fusion.data.captions.formats import (
    ONE_VIDEO,
    is_of_one_video,
    read_caption_file,
    read_one_video,
)
from fusion.data.captions.names import find_owners, match_captions, owner_of
from fusion.data.captions.subtitles import SUBTITLES, read_subtitles, split_language
from fusion.data.captions.table import Caption, CaptionError


def find_captions(place: str | Path, videos: Collection[str]) -> dict[str, list[Caption]]:
    """Find the captions of videos.

    In a folder, each video gets the caption file of its name, with or without a language
    (``a.vtt``, ``a.en.vtt``, ``a.mp4.vtt``, ``a.srt``, or ``a.csv`` with the columns start, end and
    text for ``a.mp4``): the one in the video's own folder if there is one, in English if there are
    several. In a file of several videos, captions may name a video without its ending or folder.

    Args:
        place: a folder that is searched with all below it, or a caption file.
        videos: names of media files, relative to the folder.

    Returns:
        By video, in the order given, its captions under that name; none if there are none.

    Raises:
        CaptionError: a file cannot be read, the choice is not clear, or no video has captions.
    """
    place = Path(place)
    found: dict[str, list[Caption]] = {video: [] for video in videos}
    if place.is_dir():
        for video, file in _files_by_video(place, videos).items():
            found[video] = read_one_video(file, video)
    elif place.suffix.lower() in SUBTITLES and len(found) == 1:
        return {video: read_subtitles(place, video) for video in found}
    else:
        for caption in match_captions(read_caption_file(place), found, place):
            if caption.video in found:
                found[caption.video].append(caption)
    if not any(found.values()):
        raise CaptionError(
            f"{place}: no captions of {short(list(videos))}; in a folder, name their files like "
            "the videos, such as a.vtt or a.en.srt for a.mp4; in a file, check the names in it"
        )
    return found


def read_all(place: str | Path, videos: Collection[str]) -> list[Caption]:
    """Read the captions of a file or folder, each under the full name of its video.

    Args:
        place: see :func:`find_captions`.
        videos: their full names; captions of others are under the name that they go by there.

    Returns:
        In the order of the file; of a folder, video by video.

    Raises:
        CaptionError: a file cannot be read, the choice is not clear, or there is no caption.
    """
    place = Path(place)
    if not place.is_dir():
        return match_captions(read_caption_file(place), videos, place)
    files = _files_by_video(place, videos, others=True)
    captions = [c for video, file in files.items() for c in read_one_video(file, video)]
    if not captions:
        raise CaptionError(
            f"{place}: no captions; name their files like the videos, such as a.vtt, a.en.srt, or"
            " a.csv with the columns start, end and text for a.mp4"
        )
    return captions


def stranger_files(folder: Path, videos: Iterable[str]) -> list[Path]:
    """List the caption files of a folder whose names are those of no video."""
    owners = find_owners(videos)
    return [
        file
        for file in _caption_files(folder)
        if not any(name in owners for name in (file.stem, split_language(file.stem)[0]))
    ]


def _caption_files(folder: Path) -> list[Path]:
    return [
        file
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in ONE_VIDEO and file.is_file() and is_of_one_video(file)
    ]


def _files_by_video(
    folder: Path, videos: Iterable[str], *, others: bool = False
) -> dict[str, Path]:
    """Choose a caption file for each video that has one, if asked also for others."""
    owners = find_owners(videos)
    choices: dict[str, list[tuple[Path, str]]] = defaultdict(list)
    for file in _caption_files(folder):
        exact = file.stem in owners
        name, language = (file.stem, "") if exact else split_language(file.stem)
        found = [v for v in owners.get(name, []) if (folder / v).parent == file.parent]
        if not found:
            if owner := owner_of(name, owners, file):
                found = [owner]
            elif others:
                found = [(file.parent.relative_to(folder) / name).as_posix()]
        for video in found:
            choices[video].append((file, language.lower()))
    return {video: _choose(folder / video, files) for video, files in choices.items()}


def _choose(video: Path, files: Sequence[tuple[Path, str]]) -> Path:
    """Take the file beside the video, in English, without language, or the only one."""

    def rank(choice: tuple[Path, str]) -> tuple[bool, int]:
        file, language = choice
        wishes = [language in ("en", "eng"), language[:3] in ("en-", "en_"), language == "", True]
        return file.parent != video.parent, wishes.index(True)

    best = min(map(rank, files))
    chosen = [choice for choice in files if rank(choice) == best]
    if len({(file.parent, language) for file, language in chosen}) > 1:
        raise CaptionError(
            f"{video}: which of {', '.join(str(file) for file, _ in chosen)} is meant? Leave one, "
            "or let the name of one end in .en before its ending"
        )
    return min((file for file, _ in chosen), key=lambda file: ONE_VIDEO.index(file.suffix.lower()))
