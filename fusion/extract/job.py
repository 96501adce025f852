"""The whole job: files in, a feature store and a report out."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from fusion.data.captions.match import find_captions
from fusion.data.captions.table import CaptionError
from fusion.data.features.store import FeatureStore
from fusion.data.features.writer import StoreWriter
from fusion.extract.captions import write_captions
from fusion.extract.decoders import Decoders
from fusion.extract.settings import MEANINGLESS, Features, claim, describe, facts_of, fields_of
from fusion.extract.table import Report, forget, make_report, note
from fusion.extract.videos import find_videos, share
from fusion.extract.work import Work, say

_MOST_WORKERS = 8


def extract(
    videos: Sequence[str | Path],
    out: str | Path,
    features: Features | None = None,
    *,
    captions: str | Path | None = None,
    root: str | Path | None = None,
    workers: int | None = None,
    time_limit: float = 60.0,
) -> Report:
    """Extract features of media files into a feature store.

    What is done already is not done again, so a run that was stopped in any way goes on when it is
    started again. Of several processes (``RANK`` and ``WORLD_SIZE``) each takes its share of the
    files; they need not be on one machine, only share the folder.

    Args:
        videos: files and folders, see :func:`.videos.find_videos`.
        out: folder of the store.
        features: what to extract; None: the defaults.
        captions: a folder of caption files or a caption file, for ``captions.csv``.
        root: what the names of the videos are relative to.
        workers: processes that decode; None: as many as the device keeps busy.
        time_limit: see :class:`.decoders.Decoders`.

    Returns:
        What came out of each file, as far as all processes are done.

    Raises:
        ValueError: a path, a name or a file is wrong, weights are missing, or the store has other
            settings; one line.
        KeyboardInterrupt: the user stopped it, after what was done is written.
    """
    store, features = Path(out).expanduser(), features or Features()
    films = find_videos(videos, root, store)
    if captions is not None:
        find_captions(captions, list(films))  # say now what is wrong with it
    rank, world = _place()
    device = _device()
    backbones = {field: b.to(device) for field, b in features.build().items()}
    if workers is None:
        workers = _cores() if device.type == "cuda" else 1
    samplings = {field: backbone.sampling for field, backbone in backbones.items()}
    decoders = Decoders(samplings, features.audio, workers, time_limit)
    claim(store, describe(backbones, features.audio))
    if "warning" in facts_of(backbones) and rank == 0:
        say(f"{'!' * 100}\n!!! {MEANINGLESS}\n{'!' * 100}")
    forget(store, rank, world)
    with (
        _full_disk(store),
        StoreWriter(store, fields_of(backbones, features.audio), f"rank{rank}") as writer,
    ):
        work = Work(films, writer, decoders, backbones)
        work.run(share(films, rank, world), quiet=rank > 0)
    return _finish(store, films, rank, world, work.failures, captions)


def _place() -> tuple[int, int]:
    """Return which of how many processes this one is."""
    rank, world = (int(os.environ.get(n) or d) for n, d in (("RANK", 0), ("WORLD_SIZE", 1)))
    if not 0 <= rank < world:
        raise ValueError(f"RANK counts from 0 and is less than WORLD_SIZE; got {rank} of {world}")
    return rank, world


@contextlib.contextmanager
def _full_disk(store: Path) -> Iterator[None]:
    try:
        yield
    except ChildProcessError:
        raise
    except OSError as error:
        raise OSError(
            f"{store}: writing failed ({error.strerror or error}); what is finished is whole: make"
            f" room there and in {tempfile.gettempdir()}, and give the same command again"
        ) from error


def _finish(
    store: Path,
    films: Mapping[str, Path],
    rank: int,
    world: int,
    failures: Mapping[str, str],
    captions: str | Path | None,
) -> Report:
    """Note what went wrong here; the last of the processes reports for all."""
    note(store, rank, failures)
    report = make_report(store, films, world)
    if not report.complete:
        return report
    if captions is not None:
        try:
            say(write_captions(store, captions, FeatureStore(store).videos))
        except CaptionError as error:  # none of the videos that could be read has any
            say(f"no captions are written: {error}")
    encoding = sys.stdout.encoding or "utf-8"  # that of an old screen lacks most letters
    print(report.for_screen().encode(encoding, "replace").decode(encoding), flush=True)
    return report


def _device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK") or 0) % torch.cuda.device_count())


def _cores() -> int:
    """Count the cores that this process may keep busy with decoding."""
    allowed = getattr(os, "sched_getaffinity", None)  # not on every platform
    cores = len(allowed(0)) if allowed else os.cpu_count() or 1
    return max(1, min(_MOST_WORKERS, cores // int(os.environ.get("LOCAL_WORLD_SIZE") or 1)))
