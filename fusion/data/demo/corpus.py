"""The built-in corpus on disk: rendered on first use, whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import errno
import itertools
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from fusion.data.demo.film import write_film
from fusion.data.demo.perceiver import ceilings
from fusion.data.demo.plan import SPLITS, Film, Scene, Shot
from fusion.data.demo.sentences import ATTRIBUTES
from fusion.data.demo.versions import VERSION, plan_corpus
from fusion.files import cache_folder, lock, num_cores, open_lock, recover_folder, replace_folder

logger = logging.getLogger(__name__)

BYTES_PER_FILM = 250_000  # more than a film takes


class CorpusError(ValueError):
    """The corpus cannot be rendered; the message says where and what to do."""


def demo_corpus(
    cache: str | Path | None = None,
    jobs: int | None = None,
    size: int | None = None,
    version: int = VERSION,
) -> Path:
    """Return the folder of the built-in corpus; render it on first use.

    The folder holds::

        videos/*.mp4                           pictures (H.264 or MPEG-4) and sound (AAC)
        train.csv validation.csv test.csv      video (path from here), start and end (s), text
        attributes.csv                         the true attributes of each clip, see `write_tables`
        ceilings.json                          the highest scores possible, see `perceiver.py`
        version.json

    As in real data, modalities are missing: the text of some rows of ``train.csv`` is empty, some
    scenes are black or silent, some files have no picture or no sound.

    ``cache`` is its parent folder. ``jobs`` processes render, one per core by default; the result
    does not depend on it. ``size`` and ``version`` are those of :func:`plan_corpus`.

    Raises:
        CorpusError: the disk is full, or a process that renders has died.
        ValueError: ``size`` is not a possible number of films, or there is no such ``version``.
    """
    name = f"demo-v{version}" if size is None else f"demo-v{version}-{size}"
    folder = Path(cache or cache_folder()) / name
    if not (folder / "version.json").is_file():
        films = plan_corpus(size, version)
        num_bytes = BYTES_PER_FILM * len(films)
        render_once(folder, num_bytes, lambda: _render(folder, films, size, jobs or num_cores()))
    return folder


def render_once(folder: Path, num_bytes: int, render: Callable[[], None]) -> None:
    """Call ``render``, which makes a folder with a ``version.json``, unless another process did.

    ``num_bytes``: at most what the folder takes.

    Raises:
        CorpusError: they are not free, or the disk filled up.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _one_process_at_a_time(folder.with_name(f"{folder.name}.lock")):
            # Another process may have rendered it by now.
            if not (recover_folder(folder) / "version.json").is_file():
                _check_space(folder.parent, num_bytes)
                render()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _no_space(folder.parent, num_bytes, "the disk filled up") from error


def _render(folder: Path, films: list[Film], size: int | None, jobs: int) -> None:
    with replace_folder(folder) as new:
        write_tables(films, new)
        done: Iterator[None] = map(write_film, films, itertools.repeat(new))
        if jobs > 1:
            done = _render_in_processes(new, size, films[0].version, jobs)
        for _ in tqdm(done, desc="rendering the built-in corpus", total=len(films), unit="film"):
            pass
        version = {"version": films[0].version, "films": len(films)}
        (new / "version.json").write_text(json.dumps(version))


def _render_in_processes(folder: Path, size: int | None, version: int, jobs: int) -> Iterator[None]:
    """Start ``jobs`` processes of `worker.py`; yield after each film."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    which = [str(folder), str(version), str(size or 0)]
    command = [sys.executable, "-m", "fusion.data.demo.worker", *which]
    reader, writer = os.pipe()
    workers = [
        subprocess.Popen([*command, str(job), str(jobs)], stdout=writer, env=environment)
        for job in range(jobs)
    ]
    os.close(writer)
    try:
        with os.fdopen(reader) as lines:
            for line in lines:
                if line.startswith("error "):
                    number = int(line.split()[1])
                    raise OSError(number, os.strerror(number))
                yield
        if any(worker.wait() for worker in workers):
            raise CorpusError(
                f"a process that rendered {folder.name} stopped early; its own message is above,"
                " demo_corpus(jobs=1) renders without other processes"
            )
    finally:
        for worker in workers:
            worker.terminate()
            worker.wait()


def write_tables(films: list[Film], folder: Path) -> None:
    """Write captions, attributes and ceilings, which follow from the plan alone.

    ``attributes.csv`` has columns that name the clip; one column per attribute; ``has_picture``,
    ``has_sound``, ``has_narration``, 0 or 1, of the scene; ``has_video_stream`` and
    ``has_audio_stream`` of the file; ``unsaid``, the attributes that the sentence leaves out;
    ``place``, where the sound was recorded, and ``shots``: place, frames and visible attributes of
    each (both empty in version 2).
    """
    rows = [_row(film, scene) for film in films for scene in film.scenes]
    write_csv(folder / "attributes.csv", [name for name in rows[0] if name != "text"], rows)
    for split in SPLITS:
        mine = [row for row in rows if row["split"] == split]
        write_csv(folder / f"{split}.csv", ["video", "start", "end", "text"], mine)
    scores = {split: ceilings([f for f in films if f.split == split]) for split in SPLITS[1:]}
    (folder / "ceilings.json").write_text(json.dumps(scores, indent=1))


def _row(film: Film, scene: Scene) -> dict[str, object]:
    return {
        "video": film.path,
        "start": scene.caption_start,
        "end": scene.caption_end,
        "split": film.split,
        **{attribute: scene.values[attribute] for attribute in ATTRIBUTES},
        "has_picture": int(scene.has_picture),
        "has_sound": int(scene.has_sound),
        "has_narration": int(bool(scene.text)),
        "has_video_stream": int(film.has_video_stream),
        "has_audio_stream": int(film.has_audio_stream),
        "unsaid": " ".join(scene.unsaid),
        "place": scene.place,
        "shots": "; ".join(_describe(shot) for shot in scene.shots if shot.place),
        "text": scene.text,
    }


def _describe(shot: Shot) -> str:
    return f"{shot.place} {shot.num_frames} {' '.join(shot.values.values())}"


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> None:
    """Write the named columns of some rows."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


@contextlib.contextmanager
def _one_process_at_a_time(place: Path) -> Iterator[None]:
    """Lock out other processes; where files cannot be locked, all render and the last one wins."""
    with open_lock(place) as file:
        try:
            lock(file.fileno())
        except BlockingIOError:
            logger.info("waiting for another process that renders the built-in corpus")
            lock(file.fileno(), wait=True)
        yield


def _check_space(place: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(place).free
    if free < num_bytes:
        raise _no_space(place, num_bytes, f"{free / 1e6:.0f} MB are free")


def _no_space(place: Path, num_bytes: int, found: str) -> CorpusError:
    return CorpusError(
        f"no space for the built-in corpus in {place}: it takes {max(1, round(num_bytes / 1e6))}"
        f" MB, {found}; free some or set FUSION_CACHE to a folder on another disk"
    )
