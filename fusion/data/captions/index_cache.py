"""``caption.pickle`` of HowTo100M, gigabytes in every process, converted once into the cache."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fusion.data.captions.index import CaptionStore
from fusion.data.captions.index_writer import write_caption_store
from fusion.data.captions.table import Caption
from fusion.data.untrusted.pickle import load_pickle
from fusion.files import cache_folder, missing_folder

logger = logging.getLogger(__name__)


def open_captions(path: Path) -> CaptionStore:
    """Open captions; convert them into the cache if they are not in the form that is mapped.

    Args:
        path: a caption store, ``caption.pickle`` or the same as JSON: for each video ``start`` and
            ``end`` (seconds) and ``text``.

    Raises:
        ValueError: they are missing or damaged.
    """
    if path.is_dir():
        return CaptionStore(path)
    try:
        state = path.stat()
    except OSError:
        raise ValueError(
            f"{path} is missing{missing_folder(path)}; it is among the files of HowTo100M"
            " (www.di.ens.fr/willow/research/howto100m)"
        ) from None
    identity = f"{path.resolve()} {state.st_size} {state.st_mtime_ns}"
    place = cache_folder() / "captions" / hashlib.sha256(identity.encode()).hexdigest()[:32]
    if not place.exists():
        logger.warning("converting %s, once; it is read from %s from now on", path, place)
        _convert(path, place)
    return CaptionStore(place)


def _convert(path: Path, place: Path) -> None:
    """Convert captions; if another machine was faster, keep what it made and others have mapped."""
    place.parent.mkdir(parents=True, exist_ok=True)
    own = Path(tempfile.mkdtemp(prefix=f"{place.name}.new-", dir=place.parent))
    try:
        write_caption_store(own / "store", _items(path))
        try:
            (own / "store").rename(place)  # which replaces no folder that has files
        except OSError:
            if not place.exists():
                raise
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _items(path: Path) -> Iterator[tuple[str, list[Caption]]]:
    if path.suffix == ".json":
        content = json.loads(path.read_text(encoding="utf-8"))
    else:
        content = load_pickle(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} does not hold the captions of each video")
    for video, columns in content.items():
        try:
            rows = zip(columns["start"], columns["end"], columns["text"], strict=True)
            captions = [
                Caption(str(video), float(start), float(end), str(text))
                for start, end, text in rows
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: {video!r} lacks start, end and text of equal number ({error})"
            ) from None
        # Impossible times do occur among a hundred million.
        yield str(video), [c for c in captions if 0 <= c.start < c.end < math.inf]
