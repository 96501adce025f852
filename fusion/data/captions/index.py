"""Captions of millions of videos in flat files: opened at once, read in part, shared.

HowTo100M's captions, 136 million of 1.2 million videos, take tens of gigabytes as Python objects,
in every process that loads data. Here a process has views of files, and all processes of a
machine share what they read of them.

The files are those of :mod:`fusion.data.captions.index_format`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion.data.captions.index_format import FILES, MANIFEST, VERSION, check_captions, hash_name
from fusion.data.captions.table import Caption, CaptionError


class CaptionStore:
    """Reads what :func:`fusion.data.captions.index_writer.write_caption_store` wrote.

    May be pickled, and used in forked and spawned processes: each maps the files for itself.

    Args:
        path: the folder.

    Raises:
        CaptionError: no such store, one of another version, or files that are not as long as they
            were. What has changed inside them is found by :meth:`verify`, and where it makes no
            sense also by :meth:`captions`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()  # a spawned process may be somewhere else
        self._manifest = self._read_manifest()
        self._files = {name: self._map(name) for name in FILES}
        self._check_lengths()

    def __len__(self) -> int:
        return int(self._manifest["videos"])

    def __contains__(self, video: object) -> bool:
        return isinstance(video, str) and self._find(video) is not None

    @property
    def num_captions(self) -> int:
        """How many captions all videos have."""
        return int(self._manifest["captions"])

    @property
    def videos(self) -> Sequence[str]:
        """The videos' names in the order written, each read when it is asked for."""
        return _Videos(self)

    def captions(self, video: str) -> list[Caption]:
        """Read the captions of a video, sorted by start.

        Raises:
            KeyError: the store does not have the video.
            CaptionError: the store is damaged.
        """
        place = self._find(video)
        if place is None:
            raise KeyError(f"{self.path}: no captions of {video!r}; check the name")
        first, last = self._files["captions.i8"][place : place + 2].tolist()
        offsets = self._files["texts.i8"][max(first, 0) : last + 1].tolist()
        if not 0 <= first <= last <= self.num_captions or [0, *offsets] != sorted([0, *offsets]):
            raise self._damaged(f"captions of {video!r} lead nowhere")
        text = self._files["texts.txt"][offsets[0] : offsets[-1]].tobytes()
        pieces = [text[a - offsets[0] : b - offsets[0]] for a, b in itertools.pairwise(offsets)]
        times = self._files["times.f8"][2 * first : 2 * last].reshape(-1, 2).tolist()
        try:
            captions = [
                Caption(video, start, end, piece.decode())
                for (start, end), piece in zip(times, pieces, strict=True)
            ]
            check_captions(captions, video)
        except ValueError as error:
            raise self._damaged(f"captions of {video!r}: {error}") from error
        return captions

    def verify(self) -> None:
        """Read all files and compare them with what was written; takes seconds per gigabyte.

        Raises:
            CaptionError: a file has changed.
        """
        for name in FILES:
            with open(self.path / name, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != self._manifest["files"][name]["sha256"]:
                raise self._damaged(f"{name} has changed")

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "manifest": self._manifest}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]
        if self._manifest != state["manifest"]:
            raise CaptionError(f"{self.path}: written anew while in use; open it again")

    def _find(self, video: str) -> int | None:
        """Find the place of a video by the hash of its name."""
        name = video.encode(errors="surrogatepass")
        wanted = hash_name(name)
        hashes, places = self._files["hashes.u8"], self._files["places.i8"]
        for k in range(int(np.searchsorted(hashes, np.uint64(wanted))), len(self)):
            if hashes[k] != wanted:
                break
            place = int(places[k])
            if 0 <= place < len(self) and self._name(place) == name:
                return place
        return None

    def _name(self, place: int) -> bytes:
        begin, end = self._files["names.i8"][place : place + 2].tolist()
        return self._files["names.txt"][max(begin, 0) : max(end, 0)].tobytes()

    def _read_manifest(self) -> dict[str, Any]:
        try:
            manifest = json.loads((self.path / MANIFEST).read_bytes())
            if manifest["version"] != VERSION:
                raise CaptionError(
                    f"{self.path}: a caption store of version {manifest['version']!r}, not "
                    f"{VERSION}; write it again"
                )
            sizes = [manifest["files"][name]["bytes"] for name in FILES]
            if all(type(n) is int for n in (manifest["videos"], manifest["captions"], *sizes)):
                return dict(manifest)
        except OSError as error:
            raise CaptionError(
                f"{self.path}: no caption store ({MANIFEST}: {error.strerror}); check the path"
            ) from error
        except CaptionError:
            raise
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise self._damaged(f"{MANIFEST} cannot be read") from error
        raise self._damaged(f"{MANIFEST} lacks numbers")

    def _map(self, name: str) -> NDArray[Any]:
        path, expected = self.path / name, self._manifest["files"][name]["bytes"]
        size = path.stat().st_size if path.is_file() else 0
        if size != expected:
            raise self._damaged(f"{name} has {size} bytes instead of {expected}")
        if not size:  # cannot be mapped
            return np.empty(0, FILES[name])
        return np.asarray(np.memmap(path, FILES[name], mode="r"))  # a plain view is faster to cut

    def _check_lengths(self) -> None:
        files, videos, captions = self._files, len(self), self.num_captions
        names, texts = len(files["names.txt"]), len(files["texts.txt"])
        lengths = [videos + 1, videos, videos, videos + 1, 2 * captions, captions + 1]
        fit = [len(file) for name, file in files.items() if name.endswith("8")] == lengths
        for name, end in {"names.i8": names, "captions.i8": captions, "texts.i8": texts}.items():
            fit = fit and files[name][0] == 0 and files[name][-1] == end
        if not fit:
            raise self._damaged("its files do not fit together")

    def _damaged(self, what: str) -> CaptionError:
        return CaptionError(f"{self.path}: damaged caption store, {what}; write it again")


class _Videos(Sequence[str]):
    """The names of a store's videos."""

    def __init__(self, store: CaptionStore) -> None:
        self._store = store

    def __len__(self) -> int:
        return len(self._store)

    def __contains__(self, video: object) -> bool:
        return video in self._store

    def __getitem__(self, index: Any) -> Any:
        places = range(len(self))[index]
        if isinstance(places, range):
            return [self[place] for place in places]
        try:
            return self._store._name(places).decode()
        except UnicodeDecodeError as error:
            raise self._store._damaged(f"name {places} is not UTF-8") from error
