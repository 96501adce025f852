"""Extract features: media files in, a feature store and a report out."""

from __future__ import annotations

import contextlib
import csv
import io
import logging
import math
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fusion.data.captions.films import ways_below
from fusion.data.captions.formats import SUBTITLES
from fusion.data.captions.match import ENDINGS, Ways, find_captions, read_all, stranger_files
from fusion.data.captions.table import CaptionError
from fusion.data.features.problems import MAX_BAD, logger, name_some
from fusion.data.features.store import ROOT, FeatureStore
from fusion.data.features.writer import StoreWriter
from fusion.distributed import launched_as
from fusion.extract.decoder_pool import DecoderPool
from fusion.extract.films import Extractor, own_device
from fusion.extract.outcomes import Outcomes, collect_outcomes, forget_failures, note_failures
from fusion.extract.ray_cluster import Cluster
from fusion.extract.ray_films import RayExtractor
from fusion.extract.settings import (
    MEANINGLESS,
    AnyBackbone,
    Features,
    claim,
    describe,
    facts_of,
    fields_of,
)
from fusion.extract.share import Extract, Share, say
from fusion.files import num_cores, write_atomically, write_once
from fusion.words import number_of

_MOST_WORKERS = 8


@contextlib.contextmanager
def _own_words() -> Iterator[None]:
    """Show each warning once, as captions are read again; name the tool's option in errors."""
    shown: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        said, before = record.getMessage(), len(shown)
        shown.add(said)
        return len(shown) > before

    logger.addFilter(is_new)
    try:
        yield
    except CaptionError as error:
        raise CaptionError(_with_option(error)) from None
    finally:
        logger.removeFilter(is_new)


def _with_option(error: CaptionError) -> str:
    return str(error).replace("data.max_bad", "--max-bad")


@_own_words()
def extract(
    videos: Sequence[str | Path],
    out: str | Path,
    features: Features | None = None,
    *,
    captions: str | Path | None = None,
    max_bad: float = MAX_BAD,
    root: str | Path | None = None,
    workers: int | None = None,
    time_limit: float = 60.0,
    cluster: Cluster | None = None,
) -> Outcomes:
    """Extract features of media files into a feature store.

    Videos that are in the store are not extracted again, so a run that was stopped in any way goes
    on when it is started again. Of several processes (``RANK`` and ``WORLD_SIZE``) each takes its
    share of the files; they may be on several machines that share the folder.

    Args:
        videos: files and folders, see :func:`find_videos`.
        out: folder of the store.
        features: what to extract; None: the defaults.
        captions: a folder of caption files or a caption file, for ``captions.csv``.
        max_bad: the share of captions that may be bad.
        root: what the names of the videos are relative to.
        workers: programs that decode; None: as many as the device keeps busy.
        time_limit: see :class:`.decoder_pool.DecoderPool`.
        cluster: extract with Ray, there; ``workers`` are then not used. None: in this process.

    Returns:
        The outcome of each file, as far as all processes are done.

    Raises:
        ValueError: a path, a name or a file is wrong, weights are missing, or the store has other
            settings; one line.
        KeyboardInterrupt: the user stopped it, after what was done is written.
    """
    store, features = Path(out).expanduser(), features or Features()
    films = find_videos(videos, root, store)
    name, path = next(iter(films.items()))
    base = path.parents[name.count("/")]
    if captions is not None:  # raises now if something is wrong with them
        find_captions(captions, list(films), max_bad, _ways(base, captions))
    outcomes = _extract_share(films, store, base, features, workers, time_limit, cluster)
    if outcomes.complete:  # the last of the processes reports for all
        _report(store, outcomes, captions, max_bad, base)
    return outcomes


def _extract_share(
    films: Mapping[str, Path],
    store: Path,
    base: Path,
    features: Features,
    workers: int | None,
    time_limit: float,
    cluster: Cluster | None,
) -> Outcomes:
    """Extract this process's share of the films; return what is known of those of all."""
    rank, world_size = launched_as()
    if cluster and world_size > 1:
        raise ValueError("--engine ray divides the films itself; unset RANK and WORLD_SIZE")
    backbones = features.build()
    settings = describe(backbones, features.audio, features.tracks)
    if cluster is None:
        extract_films = _here(backbones, features, workers, time_limit)
    else:
        extract_films = RayExtractor(cluster, features, settings, time_limit).extract
    claim(store, settings)
    write_once(store / ROOT, f"{base}\n")
    if "warning" in facts_of(backbones) and rank == 0:
        say(f"{'!' * 100}\n!!! {MEANINGLESS}\n{'!' * 100}")
    forget_failures(store, rank, world_size)
    with (
        _full_disk(store),
        StoreWriter(store, fields_of(backbones, features.audio), f"rank{rank}") as writer,
    ):
        share = Share(films, writer, extract_films)
        share.extract(list(films)[rank::world_size], quiet=rank > 0)
    note_failures(store, rank, share.failures)
    return collect_outcomes(store, films, world_size)


def _here(
    backbones: Mapping[str, AnyBackbone], features: Features, workers: int | None, limit: float
) -> Extract:
    """Extract films in this process, with programs that decode beside it."""
    device = own_device()
    moved = {field: backbone.to(device) for field, backbone in backbones.items()}
    if workers is None:
        workers = _cores() if device.type == "cuda" else 1
    samplings = {field: backbone.sampling for field, backbone in moved.items()}
    decoders = DecoderPool(samplings, features.audio, workers, limit, features.tracks)
    return Extractor(moved, decoders).extract


def _ways(base: Path, captions: str | Path) -> Ways:
    """Say what the names in a caption file, which are relative to it, are called in the store."""
    return ways_below(base, Path(captions).parent)


@contextlib.contextmanager
def _full_disk(store: Path) -> Iterator[None]:
    try:
        yield
    except ChildProcessError:
        raise
    except OSError as error:
        raise OSError(
            f"{store}: writing failed ({error.strerror or error}); the videos in the store are"
            f" complete: make room there and in {tempfile.gettempdir()}, and give the same command"
            " again"
        ) from error


def _report(
    store: Path, outcomes: Outcomes, captions: str | Path | None, max_bad: float, base: Path
) -> None:
    """Write the captions of the videos in the store, and print the table of outcomes."""
    if captions is not None:
        videos, ways = FeatureStore(store).videos, _ways(base, captions)
        try:
            say(_write_captions(store, captions, videos, max_bad, ways))
        except CaptionError as error:  # no video that could be read has any
            say(f"no captions are written: {_with_option(error)}")
    encoding = sys.stdout.encoding or "utf-8"  # some screens lack most letters
    print(outcomes.for_screen().encode(encoding, "replace").decode(encoding), flush=True)


def _write_captions(
    store: Path,
    place: str | Path,
    videos: Sequence[str],
    max_bad: float = MAX_BAD,
    ways: Ways = lambda name: (),
) -> str:
    """Write ``captions.csv``, with columns video, start, end, text, into the folder of a store.

    Captions of whole videos have neither start nor end. Returns one line that counts captions and
    names videos without any. Errors are those of :func:`find_captions`.
    """
    found = find_captions(place, videos, max_bad, ways)
    captions = [caption for video in found.values() for caption in video]
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["video", "start", "end", "text"])
    for c in captions:
        end = "" if math.isinf(c.end) else c.end
        writer.writerow([c.video, "" if c.is_whole else c.start, end, c.text])
    write_atomically(store / "captions.csv", table.getvalue())
    without = [video for video, its in found.items() if not its]
    described = number_of(len(found) - len(without), "video")
    parts = [f"captions.csv: {number_of(len(captions), 'caption')} of {described}"]
    parts += _strangers(Path(place), videos, max_bad, ways)
    if without:
        lacking = number_of(len(without), "video")
        parts.append(f"without captions: {lacking} of the store ({name_some(without)})")
    return "; ".join(parts)


def _strangers(place: Path, videos: Sequence[str], max_bad: float, ways: Ways) -> list[str]:
    """Name the caption files, or the captions, that belong to no video of the store."""
    if place.is_dir():
        lost, what = [file.name for file in stranger_files(place, videos)], "caption file"
    elif place.suffix.lower() in SUBTITLES:  # of one video
        return []
    else:
        ours = set(videos)
        captions = read_all(place, ours, max_bad, ways)
        lost, what = [c.video for c in captions if c.video not in ours], "caption"
    text = f"of no video in the store: {number_of(len(lost), what)}"
    return [f"{text} ({name_some(list(dict.fromkeys(lost)))})"] if lost else []


def find_videos(
    places: Sequence[str | Path], root: str | Path | None = None, leave_out: Path | None = None
) -> dict[str, Path]:
    """List media files by name: the path relative to a common folder, with forward slashes.

    ``places`` are files, and folders that are searched at any depth except for hidden files and the
    folder ``leave_out``. ``root`` None: names are relative to the deepest folder that holds all.
    """
    files: dict[Path, None] = {}
    for place in map(Path, places):
        if not place.exists():
            raise ValueError(f"{place}: no such file or folder; check the path")
        found = sorted(_search(place, leave_out)) if place.is_dir() else [place]
        if not found:
            raise ValueError(f"{place}: no media file in this folder; name one by itself to try it")
        files.update(dict.fromkeys(map(_absolute, found)))
    folders = [_absolute(p) if p.is_dir() else _absolute(p).parent for p in map(Path, places)]
    base = _absolute(Path(root)) if root else Path(os.path.commonpath(folders))
    for file in files:
        if not file.is_relative_to(base):
            raise ValueError(f"{file} is not in the folder {base}; give another --root")
    return dict(sorted((file.relative_to(base).as_posix(), file) for file in files))


def _search(folder: Path, leave_out: Path | None) -> Iterator[Path]:
    """Find media files; links are followed, but no folder is searched twice."""
    visited = {os.path.realpath(leave_out)} if leave_out else set()
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        if (real := os.path.realpath(here)) in visited:
            continue
        visited.add(real)
        for entry in os.scandir(here):
            if entry.name.startswith("."):
                continue  # such as ._film.mp4, which macOS leaves on other disks
            if entry.is_dir():
                waiting.append(here / entry.name)
            elif os.path.splitext(entry.name)[1].lower() in ENDINGS:
                yield here / entry.name


def _absolute(path: Path) -> Path:
    """Make a path absolute and remove ``..``, without following links."""
    return Path(os.path.abspath(path))


def _cores() -> int:
    """Count the cores that this process may keep busy with decoding."""
    return max(1, min(_MOST_WORKERS, num_cores() // int(os.environ.get("LOCAL_WORLD_SIZE") or 1)))
