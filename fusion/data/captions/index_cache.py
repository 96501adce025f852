"""``caption.pickle`` of HowTo100M, gigabytes in every process, converted once into the cache."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
from pathlib import Path

from fusion.data.captions.formats import read_by_video
from fusion.data.captions.index import CaptionStore
from fusion.data.captions.index_writer import write_caption_store
from fusion.data.captions.table import CaptionParser
from fusion.data.features.problems import MAX_BAD
from fusion.files import cache_folder, missing_folder

logger = logging.getLogger(__name__)

BAD = "bad.json"  # beside the files of the store: how many captions were left out, and the first


def open_captions(path: Path, max_bad: float = MAX_BAD) -> CaptionStore:
    """Open captions; convert them into the cache if they are not in the form that is mapped.

    Args:
        path: a caption store, ``caption.pickle`` or the same as JSON: for each video ``start`` and
            ``end`` (seconds) and ``text``.
        max_bad: the share of captions that may be bad, see :class:`CaptionParser`. The bad ones are
            counted when they are converted, and limited whenever they are opened.

    Raises:
        ValueError: they are missing or damaged, or too many are bad.
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
    parser = CaptionParser(max_bad)
    if (place / BAD).exists():  # not in a cache of older versions, which did not count
        vars(parser).update(json.loads((place / BAD).read_text()))
    parser.check()
    return CaptionStore(place)


def _convert(path: Path, place: Path) -> None:
    """Convert captions; if another machine was faster, keep what it made and others have mapped."""
    place.parent.mkdir(parents=True, exist_ok=True)
    own = Path(tempfile.mkdtemp(prefix=f"{place.name}.new-", dir=place.parent))
    try:
        parser = CaptionParser(timed=True)
        write_caption_store(own / "store", read_by_video(path, parser))
        found = {"total": parser.total, "bad": parser.bad, "problems": parser.problems}
        (own / "store" / BAD).write_text(json.dumps(found))
        try:
            (own / "store").rename(place)  # which replaces no folder that has files
        except OSError:
            if not place.exists():
                raise
    finally:
        shutil.rmtree(own, ignore_errors=True)
