"""Published features into a feature store."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fusion.data.datasets.howto100m import KINDS, expected
from fusion.data.datasets.msrvtt_youcook2 import AVLNET_DATA, EAO_DATA
from fusion.data.datasets.pickled import PickledClip, read_clips
from fusion.data.features.format import Field
from fusion.data.features.readers import PublishedFolders
from fusion.data.features.writer import StoreWriter
from fusion.data.media.log_mel import NUM_MELS, spectrogram_seconds
from fusion.files import missing_folder, write_atomically
from fusion.words import number_of

Read = tuple[Mapping[str, Any], list[str]]  # features and problems of a video
LARGEST = 65504.0  # of float16


def pack_howto100m(root: Path, out: Path, features: str = "resnet") -> None:
    """Pack the published folders of HowTo100M; each process takes its share of the videos.

    Args:
        root: folder of data sets, with ``howto`` in it, see
            :class:`fusion.data.datasets.howto100m.HowTo100M`.
        out: the store. Videos that it has are skipped.
        features: one of ``KINDS``.

    Raises:
        ValueError: the folders are not there, or the store holds other features.
    """
    kind, folder = KINDS[features], root.expanduser() / "howto"
    if not folder.is_dir():
        where = "is a file" if root.expanduser().is_file() else "has no folder howto"
        where += missing_folder(folder)
        raise ValueError(f"{root} {where}; name a folder with {expected(features)}")
    reader = PublishedFolders(
        folder / kind.videos, folder / kind.folder, folder / "audio_features", kind.fields
    )
    videos = list(dict.fromkeys(reader.videos))
    _write(out, kind.fields, videos, lambda video: _read_video(reader, video))


def pack_pickle(file: Path, out: Path, features: str = "resnet") -> None:
    """Pack a pickle of clips, each as a video of its own, and write caption files.

    Each process takes its share of the clips; the first writes the captions. Features that cannot
    be used, or are too large for float16, are left out and named in the report.

    ``NAME.csv`` has for each clip the text that it is evaluated with, ``NAME_training.csv`` all.

    Args:
        file: see :mod:`fusion.data.datasets.pickled`; features of other kinds are in the folder
            beside its own, as published.
        out: the store.
        features: one of ``KINDS``.

    Raises:
        ValueError: it is no such pickle, or the store holds other features.
    """
    file = file.expanduser()
    if file.is_dir():
        raise ValueError(
            f"{file} is a folder; name one pickle of clips, such as"
            " DATA_ROOT/msrvtt/resnet/msrvtt_jsfusion_test.pkl, which come with"
            f" {EAO_DATA}, or {AVLNET_DATA}"
        )
    beside = file.parent.parent / features / file.name if features != "resnet" else None
    clips = read_clips(file, features, beside, max_bad=1.0)
    rates = {name: field.per_second for name, field in KINDS[features].fields.items()}
    widths = {name: NUM_MELS if name == "audio" else _width(clips, name) for name in rates}
    fields = {name: Field(width, rates[name]) for name, width in widths.items() if width}
    by_name = {clip.id: clip for clip in clips}
    if len(by_name) < len(clips):
        raise ValueError(f"{file} has {len(clips) - len(by_name)} clips under the names of others")
    _write(out, fields, list(by_name), lambda name: _check_clip(by_name[name]))
    if _place()[0] == 0:
        _write_captions(file, out, clips, fields)


def _write_captions(
    file: Path, out: Path, clips: Sequence[PickledClip], fields: Mapping[str, Field]
) -> None:
    for ending, texts in [("", lambda clip: [clip.text]), ("_training", lambda clip: clip.texts)]:
        table = io.StringIO()
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(["video", "start", "end", "text"])
        for clip in clips:
            end = f"{_seconds(clip, fields) + 0.001:.3f}"  # rounding must not cost the last frame
            rows.writerows((clip.id, 0, end, text) for text in texts(clip))
        path = out / f"{file.stem}{ending}.csv"
        write_atomically(path, table.getvalue())
        print(f"{path}: {number_of(sum(len(texts(clip)) for clip in clips), 'caption')}")


def _write(
    out: Path, fields: Mapping[str, Field], names: Sequence[str], read: Callable[[str], Read]
) -> None:
    rank, ranks = _place()
    problems: dict[str, list[str]] = {}
    added = skipped = 0
    with StoreWriter(out, fields, name=f"pack{rank}") as writer:
        for name in tqdm(names[rank::ranks], desc="packing", unit="video", disable=rank > 0):
            if writer.done(name):
                skipped += 1
                continue
            features, found = read(name)
            if features:
                writer.add(name, features, {"problems": found} if found else {})
                added += 1
            if found:
                problems[name] = found
    report = {"added": added, "there before": skipped, "problems": problems}
    write_atomically(out / f"pack-report-{rank}.json", json.dumps(report, indent=1))
    print(
        f"{out}: {number_of(added, 'video')} added, {skipped} there before, {len(problems)} with"
        " problems" + (f" (see pack-report-{rank}.json)" if problems else "")
    )


def _read_video(reader: PublishedFolders, video: str) -> Read:
    features, problems = {}, []
    for field in reader.fields:
        try:
            rows = reader.read(video, field)
            _refuse_too_large(rows.numpy(), video, field)
            features[field] = rows
        except ValueError as error:
            problems.append(str(error))
    return features, problems


def _check_clip(clip: PickledClip) -> Read:
    features, problems = {}, list(clip.problems)
    for field, rows in clip.features.items():
        try:
            _refuse_too_large(rows, clip.id, field)
            features[field] = rows
        except ValueError as error:
            problems.append(str(error))
    return features, problems


def _refuse_too_large(rows: NDArray[Any], video: str, field: str) -> None:
    if rows.size and not np.abs(rows).max() <= LARGEST:
        raise ValueError(f"{field} of {video}: not finite, or too large for float16")


def _seconds(clip: PickledClip, fields: Mapping[str, Field]) -> float:
    if "audio" in clip.features:
        return spectrogram_seconds(len(clip.features["audio"]))
    rows = [
        len(clip.features[n]) / fields[n].per_second for n in ("3d", "2d") if n in clip.features
    ]
    return max(rows, default=0.001)


def _width(clips: Sequence[PickledClip], name: str) -> int | None:
    return next((c.features[name].shape[1] for c in clips if name in c.features), None)


def _place() -> tuple[int, int]:
    """Say which process of how many this is."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
