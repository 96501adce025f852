"""Which captions belong to which video: by names with or without folder and ending."""

from __future__ import annotations

import contextlib
import dataclasses
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from os.path import splitext
from pathlib import Path
from reprlib import repr as short

from fusion.data.captions import formats, table
from fusion.data.captions.guess import Guesses
from fusion.data.captions.rows import find_columns, read_table
from fusion.data.captions.table import Caption, CaptionError, CaptionParser, NoCaptionsError
from fusion.data.features.problems import MAX_BAD

ONE_VIDEO = (*formats.SUBTITLES, ".csv")  # files named like their video; the first is taken

# Endings of the media files that are looked for in a folder; a file that is named may have any.
ENDINGS = frozenset(
    {".3g2", ".3gp", ".asf", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"}
    | {".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".ogv", ".ts", ".vob", ".webm", ".wmv"}
    | {".aac", ".ac3", ".aif", ".aiff", ".au", ".caf", ".flac", ".m4a", ".mka", ".mp3", ".ogg"}
    | {".opus", ".wav", ".wma"}
)

Owners = Mapping[str, Sequence[str]]
Ways = Callable[[str], Sequence[str]]  # what else a name may be called, see .films.ways_below


def find_captions(
    place: str | Path,
    videos: Collection[str],
    max_bad: float = MAX_BAD,
    ways: Ways = lambda name: (),
) -> dict[str, list[Caption]]:
    """Find the captions of videos.

    In a folder, each video gets the caption file of its name, with or without a language
    (``a.vtt``, ``a.en.vtt``, ``a.mp4.vtt``, ``a.srt``, or ``a.csv`` with the columns start, end and
    text for ``a.mp4``): the one in the video's own folder if there is one, in English if there are
    several. In a file of several videos, captions may name a video without its ending or folder.

    Args:
        place: a folder that is searched with all below it, or a caption file.
        videos: names of media files, relative to the folder.
        max_bad: the share of captions that may be bad, see :class:`CaptionParser`.
        ways: what else the videos of the file may be called.

    Returns:
        The captions of each video, in the order of ``videos``; an empty list if it has none.

    Raises:
        CaptionError: a file cannot be read, too many captions are bad, the choice is not clear, or
            no video has captions.
    """
    place = Path(place)
    found: dict[str, list[Caption]] = {video: [] for video in videos}
    if place.is_dir():
        found |= _read_folder(files_by_video(place, videos), CaptionParser(max_bad))
    elif place.suffix.lower() in formats.SUBTITLES and len(found) == 1:
        return {video: formats.read_caption_file(place, video, max_bad) for video in found}
    else:
        for caption in read_all(place, found, max_bad, ways):
            if caption.video in found:
                found[caption.video].append(caption)
    if not any(found.values()):
        raise CaptionError(
            f"{place}: no captions of {short(list(videos))}; in a folder, name their files like "
            "the videos, such as a.vtt or a.en.srt for a.mp4; in a file, check the names in it"
        )
    return found


def read_all(
    place: str | Path,
    videos: Collection[str],
    max_bad: float = MAX_BAD,
    ways: Ways = lambda name: (),
    parser: CaptionParser | None = None,
) -> list[Caption]:
    """Read the captions of a file or folder, each under the full name of its video.

    Captions of other videos keep the name that they have there. They are in the order of the file;
    of a folder, video by video. ``in videos`` should be fast; otherwise see :func:`find_captions`,
    which explains the arguments; ``parser`` is as in :func:`.formats.read_caption_file`.
    """
    place, parser = Path(place), parser or CaptionParser(max_bad)
    if place.is_dir():
        found = _read_folder(files_by_video(place, videos, others=True), parser)
        if captions := [caption for its in found.values() for caption in its]:
            return captions
        raise NoCaptionsError(
            f"{place}: no captions; name their files like the videos, such as a.vtt, a.en.srt, or"
            " a.csv with the columns start, end and text for a.mp4"
        )
    captions = formats.read_caption_file(place, parser=parser)
    full = full_names({caption.video: None for caption in captions}, videos, place, ways)
    return [dataclasses.replace(c, video=full[c.video]) for c in captions]


def full_names(
    names: Iterable[str], videos: Collection[str], source: str | Path, ways: Ways = lambda name: ()
) -> dict[str, str]:
    """Find the video that each name means: by its other ways first; else it keeps its name.

    CaptionError: a name may mean several videos; ``source`` is where it is from.
    """
    full: dict[str, str] = {}
    for name in names:
        full[name] = next((way for way in (*ways(name), name) if way in videos), "")
    if unknown := [name for name, video in full.items() if not video]:
        called = {name: (*ways(name), name) for name in unknown}
        owners = find_owners(videos, [way for its in called.values() for way in its])
        for name, its in called.items():
            found = (owner_of(way, owners, source) for way in its)
            full[name] = next(filter(None, found), name)
    return full


def stranger_files(folder: Path, videos: Iterable[str]) -> list[Path]:
    """List the caption files of a folder whose names are those of no video."""
    owners = find_owners(videos)
    names = {file: _keys(file) for file in _files_in(folder)}
    return [file for file, own in names.items() if not own & owners.keys()]


def find_owners(videos: Iterable[str], wanted: Iterable[str] | None = None) -> Owners:
    """List videos by each name that they may have: with and without folder and ending.

    Names that are not in ``wanted`` are left out, unless it is None.
    """
    looked_up: Collection[str] | None = None
    if wanted is not None:
        looked_up = {
            other for name in wanted for other in (_key(name), _key(_without_ending(name)))
        }
    owners: dict[str, list[str]] = defaultdict(list)
    for video in dict.fromkeys(videos):
        base = video.rpartition("/")[2]
        for name in map(_key, {video, base, splitext(video)[0], splitext(base)[0]}):
            if looked_up is None or name in looked_up:
                owners[name].append(video)
    return dict(owners)


def owner_of(name: str, owners: Owners, source: str | Path) -> str | None:
    """Find the video that a name means, None if there is none; CaptionError: it may mean several.

    A name with the ending of a media file may also mean a video known without one.
    """
    found = owners.get(_key(name), [])
    if name in found:
        return name
    if not found:
        bare = _key(_without_ending(name))
        found = [video for video in owners.get(bare, []) if _without_ending(video) == video]
    if len(found) > 1:
        raise CaptionError(f"{source}: {name} may be {' or '.join(found)}; name it in full")
    return found[0] if found else None


def _read_folder(files: Mapping[str, Path], parser: CaptionParser) -> dict[str, list[Caption]]:
    """Read a file for each video; one that cannot be read counts as a bad caption."""
    found: dict[str, list[Caption]] = {}
    refused: list[str] = []
    for video, file in files.items():
        read = table.read_csv if file.suffix.lower() == ".csv" else formats.read_subtitles
        try:
            found[video] = read(file, parser, video)
        except CaptionError as error:
            refused.append(str(error))
            parser.refuse(str(error))
    if refused and len(refused) == len(files):
        raise NoCaptionsError(refused[0])
    parser.check()
    return found


def _files_in(folder: Path) -> list[Path]:
    """List the caption files of a folder and below, sorted."""
    files = [file for file in sorted(folder.rglob("*")) if file.suffix.lower() in ONE_VIDEO]
    return [file for file in files if file.is_file() and _is_of_one_video(file)]


def _is_of_one_video(path: Path) -> bool:
    """Tell whether a file has the captions of the video of its name.

    A csv file must have times and no column that names videos, such as HowTo100M's
    (``start,end,text``): other csv files in a folder are lists of something else.
    """
    if path.suffix.lower() in formats.SUBTITLES:
        return True
    try:
        rows = read_table(path, Guesses(), lambda message: None).rows
    except CaptionError:
        return False
    found = find_columns(rows[0][1]) if rows else {}
    return "video" not in found and {"start", "end", "text"} <= found.keys()


def files_by_video(
    folder: Path,
    videos: Iterable[str],
    *,
    others: bool = False,
    refuse: Callable[[CaptionError], None] | None = None,
) -> dict[str, Path]:
    """Choose a caption file for each video that has one; with ``others`` also for other videos.

    ``refuse`` gets the error of each file and video whose choice is not clear; None: it is raised.
    """
    owners = find_owners(videos)
    choices: dict[str, list[tuple[Path, str]]] = defaultdict(list)
    for file in _files_in(folder):
        exact = _key(file.stem) in owners
        name, language = (file.stem, "") if exact else formats.split_language(file.stem)
        found = [v for v in owners.get(_key(name), []) if (folder / v).parent == file.parent]
        with _told(refuse):
            if not found:
                if owner := owner_of(name, owners, file):
                    found = [owner]
                elif others:
                    found = [(file.parent.relative_to(folder) / name).as_posix()]
        for video in found:
            choices[video].append((file, language.lower()))
    chosen = {}
    for video, files in choices.items():
        with _told(refuse):
            chosen[video] = _choose(folder / video, files)
    return chosen


@contextlib.contextmanager
def _told(refuse: Callable[[CaptionError], None] | None) -> Iterator[None]:
    try:
        yield
    except CaptionError as error:
        if refuse is None:
            raise
        refuse(error)


def _choose(video: Path, files: Sequence[tuple[Path, str]]) -> Path:
    """Take the file beside the video, in English, without language, or the only one."""

    def preference(choice: tuple[Path, str]) -> tuple[bool, int]:
        file, language = choice
        wishes = [language in ("en", "eng"), language[:3] in ("en-", "en_"), language == "", True]
        return file.parent != video.parent, wishes.index(True)

    best = min(map(preference, files))
    chosen = [choice for choice in files if preference(choice) == best]
    if len({(file.parent, language) for file, language in chosen}) > 1:
        raise CaptionError(
            f"{video}: which of {', '.join(str(file) for file, _ in chosen)} is meant? Leave one, "
            "or let the name of one end in .en before its ending"
        )
    return min((file for file, _ in chosen), key=lambda file: ONE_VIDEO.index(file.suffix.lower()))


def _key(name: str) -> str:
    """Write a name in one way: composed letters, as macOS takes them apart, and slashes."""
    return unicodedata.normalize("NFC", name).replace("\\", "/").removeprefix("./")


def _keys(file: Path) -> set[str]:
    return {_key(file.stem), _key(formats.split_language(file.stem)[0])}


def _without_ending(name: str) -> str:
    root, ending = splitext(name)
    return root if ending.lower() in ENDINGS else name
