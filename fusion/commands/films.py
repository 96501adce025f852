"""Train on a folder of films in one command: features first, then the run."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fusion.commands.check import Collector, find_films
from fusion.config import ConfigError, load_config
from fusion.data.captions.films import Media
from fusion.data.features.problems import warn
from fusion.data.features.store import FeatureStore
from fusion.extract.job import extract
from fusion.extract.settings import Features
from fusion.files import cache_folder, write_atomically
from fusion.words import number_of

# Light: 5 million weights, a picture a second. On two cores of a CPU decoding takes longer.
LIGHT = Features(features_2d="mobilenetv3_large_100.ra_in1k", features_3d="none")


def films_config(
    films: str | Path,
    captions: str | Path,
    config: str | Path = "own_videos",
    overrides: Sequence[str] = (),
    read: Callable[[str | Path, Sequence[str]], dict[str, Any]] = load_config,
    features: Features = LIGHT,
) -> dict[str, Any]:
    """Extract features of the films that a caption file names; return the config to train with.

    The features are in a store in the cache, for the next runs too. If the weights of the networks
    cannot be had, the config takes hand-made descriptors, and a warning says so.

    Args:
        films: folder of films; films beside the caption file are found as well.
        captions: caption file or folder.
        config: recipe or file.
        overrides: changes to it.
        read: reads the config with its overrides.
        features: the networks.

    Raises:
        ValueError: a path is wrong, captions cannot be read, or no film can.
    """
    root, file = Path(films).expanduser(), Path(captions).expanduser()
    if not root.is_dir():
        raise ConfigError(f"--films: {root} is no folder; name the folder of the films")
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        raise ConfigError(
            "--films works in one process; extract first (fusion extract FILMS --out STORE), then"
            " train with data.train=CAPTIONS data.store=STORE"
        )
    given = [f"data.train={json.dumps(str(file.absolute()), ensure_ascii=False)}"]
    given += [f"data.root={json.dumps(str(root.absolute()), ensure_ascii=False)}"]
    loaded = read(config, [*given, *overrides])  # mistakes in it are found first
    found, folder = find_films(file, root, Collector())
    films_there = Media(folder)
    paths = [folder / name for name in dict.fromkeys(c.video for c in found) if name in films_there]
    if not paths:
        raise ConfigError(f"{file}: none of its films is in {root}; see fusion check")
    if (store := _extract(paths, root, features)) is not None:
        loaded["data"] = loaded["data"] | {"store": str(store)}
    return loaded


def _extract(paths: Sequence[Path], root: Path, features: Features) -> Path | None:
    """Extract features into a store in the cache; None: there are no weights."""
    try:
        features.build()
    except ValueError as error:
        reason = str(error).partition(", and pass the file")[0]
        warn(
            f"{reason}; so video features are hand-made descriptors, which tell moving shapes"
            " apart, but little of real videos"
        )
        return None
    root, paths = Path(os.path.abspath(root)), [Path(os.path.abspath(path)) for path in paths]
    if not all(path.is_relative_to(root) for path in paths):
        root = Path(os.path.commonpath([path.parent for path in paths]))
    store = _find_store(f"{os.path.realpath(root)} {features}", paths)
    before = set(FeatureStore(store).videos) if (store / "store.json").exists() else set()
    names = " and ".join(n for n in (features.features_2d, features.features_3d) if n != "none")
    warn(f"features of {number_of(len(paths), 'film')} with {names}, kept in {store}")
    start = time.monotonic()
    outcomes = extract(paths, store, features, root=root)
    taken = time.monotonic() - start
    seconds = sum(file.seconds for file in outcomes.files if file.video not in before)
    if outcomes.exit_code:
        raise ConfigError(f"no film could be read; see {store / 'report.txt'}")
    if seconds:
        warn(f"{seconds:.0f} s of film in {taken:.0f} s, {seconds / taken:.1f} times their speed")
    return store


def _find_store(identity: str, paths: Sequence[Path]) -> Path:
    """Return the folder of the store, the first in which no film is as it is no longer.

    A file beside it has the size and the time of each film. A replaced film needs a new store, as
    another run may read the old one; further films are added to it.
    """
    stats = {str(path): path.stat() for path in paths}
    now = {path: [stat.st_size, stat.st_mtime_ns] for path, stat in stats.items()}
    version = 0
    while True:
        name = hashlib.sha256(f"{identity} {version}".encode()).hexdigest()[:16]
        store = cache_folder() / "films" / name
        stamps = store.with_suffix(".json")
        then = json.loads(stamps.read_text()) if stamps.exists() else {}
        if all(then.get(path, state) == state for path, state in now.items()):
            store.mkdir(parents=True, exist_ok=True)
            write_atomically(stamps, json.dumps(then | now))
            return store
        version += 1
