"""Extract features: media files in, a feature store and a report out."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from fusion.data.captions.match import find_captions
from fusion.data.captions.table import CaptionError
from fusion.data.features.store import FeatureStore
from fusion.data.features.writer import StoreWriter
from fusion.extract.captions import write_captions
from fusion.extract.decoder_pool import DecoderPool
from fusion.extract.outcomes import Outcomes, collect_outcomes, forget_failures, note_failures
from fusion.extract.settings import MEANINGLESS, Features, claim, describe, facts_of, fields_of
from fusion.extract.share import Share, say
from fusion.extract.videos import find_videos

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
) -> Outcomes:
    """Extract features of media files into a feature store.

    Videos that are in the store are not extracted again, so a run that was stopped in any way goes
    on when it is started again. Of several processes (``RANK`` and ``WORLD_SIZE``) each takes its
    share of the files; they may be on several machines that share the folder.

    Args:
        videos: files and folders, see :func:`.videos.find_videos`.
        out: folder of the store.
        features: what to extract; None: the defaults.
        captions: a folder of caption files or a caption file, for ``captions.csv``.
        root: what the names of the videos are relative to.
        workers: programs that decode; None: as many as the device keeps busy.
        time_limit: see :class:`.decoder_pool.DecoderPool`.

    Returns:
        The outcome of each file, as far as all processes are done.

    Raises:
        ValueError: a path, a name or a file is wrong, weights are missing, or the store has other
            settings; one line.
        KeyboardInterrupt: the user stopped it, after what was done is written.
    """
    store, features = Path(out).expanduser(), features or Features()
    films = find_videos(videos, root, store)
    if captions is not None:
        find_captions(captions, list(films))  # raises now if something is wrong with them
    rank, world_size = _place()
    device = _device()
    backbones = {field: b.to(device) for field, b in features.build().items()}
    if workers is None:
        workers = _cores() if device.type == "cuda" else 1
    samplings = {field: backbone.sampling for field, backbone in backbones.items()}
    decoders = DecoderPool(samplings, features.audio, workers, time_limit)
    claim(store, describe(backbones, features.audio))
    if "warning" in facts_of(backbones) and rank == 0:
        say(f"{'!' * 100}\n!!! {MEANINGLESS}\n{'!' * 100}")
    forget_failures(store, rank, world_size)
    with (
        _full_disk(store),
        StoreWriter(store, fields_of(backbones, features.audio), f"rank{rank}") as writer,
    ):
        share = Share(films, writer, decoders, backbones)
        share.extract(list(films)[rank::world_size], quiet=rank > 0)
    note_failures(store, rank, share.failures)
    outcomes = collect_outcomes(store, films, world_size)
    if outcomes.complete:  # the last of the processes reports for all
        _report(store, outcomes, captions)
    return outcomes


def _place() -> tuple[int, int]:
    """Return the rank of this process and the number of processes."""
    rank, world_size = (int(os.environ.get(n) or d) for n, d in (("RANK", 0), ("WORLD_SIZE", 1)))
    if not 0 <= rank < world_size:
        raise ValueError(
            f"RANK counts from 0 and is less than WORLD_SIZE; got {rank} of {world_size}"
        )
    return rank, world_size


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


def _report(store: Path, outcomes: Outcomes, captions: str | Path | None) -> None:
    """Write the captions of the videos in the store, and print the table of outcomes."""
    if captions is not None:
        try:
            say(write_captions(store, captions, FeatureStore(store).videos))
        except CaptionError as error:  # no video that could be read has any
            say(f"no captions are written: {error}")
    encoding = sys.stdout.encoding or "utf-8"  # some screens lack most letters
    print(outcomes.for_screen().encode(encoding, "replace").decode(encoding), flush=True)


def _device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK") or 0) % torch.cuda.device_count())


def _cores() -> int:
    """Count the cores that this process may keep busy with decoding."""
    allowed = getattr(os, "sched_getaffinity", None)  # not on every platform
    cores = len(allowed(0)) if allowed else os.cpu_count() or 1
    return max(1, min(_MOST_WORKERS, cores // int(os.environ.get("LOCAL_WORLD_SIZE") or 1)))
