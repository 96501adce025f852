"""Pack published features into a feature store; check the bytes of a store."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from fusion.data.captions.index import FILES, CaptionStore
from fusion.data.datasets.howto100m import PUBLISHED, expected
from fusion.data.datasets.msrvtt_youcook2 import AVLNET_DATA, EAO_DATA
from fusion.data.datasets.pickled import PickledClip, PickledFeatures, read_clips
from fusion.data.features.readers import PublishedFolders, Reader
from fusion.data.features.store import FeatureStore, find_damaged_shards
from fusion.data.features.writer import StoreWriter
from fusion.data.media.log_mel import spectrogram_seconds
from fusion.distributed import launched_as
from fusion.files import missing_folder, write_atomically
from fusion.words import number_of, visible

LARGEST = 65504.0  # of float16


def pack_howto100m(root: Path, out: Path, features: str = "resnet") -> None:
    """Pack the published folders of HowTo100M; each process takes its share of the videos.

    Args:
        root: of :class:`fusion.data.datasets.howto100m.HowTo100M`, with a folder ``howto``.
        out: the store. Videos that it has are skipped.
        features: one of ``PUBLISHED``.

    Raises:
        ValueError: the folders are not there, or the store holds other features.
    """
    kind, folder = PUBLISHED[features], root.expanduser() / "howto"
    if not folder.is_dir():
        where = "is a file" if root.expanduser().is_file() else "has no folder howto"
        where += missing_folder(folder)
        raise ValueError(f"{root} {where}; name a folder with {expected(features)}")
    reader = PublishedFolders(
        folder / kind.videos, folder / kind.folder, folder / "audio_features", kind.fields
    )
    _write(out, reader, {})


def pack_pickle(file: Path, out: Path, features: str = "resnet") -> None:
    """Pack a pickle of clips, each as a video of its own, and write caption files.

    Each process takes its share of the clips; the first writes the captions: ``NAME.csv`` has the
    text with which each clip is evaluated, ``NAME_training.csv`` all texts. Features that cannot be
    used, or are too large for float16, are left out and named in the report.

    Args:
        file: see :mod:`fusion.data.datasets.pickled`; those of other kinds lie beside its folder.
        out: the store.
        features: one of ``PUBLISHED``.

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
    if repeated := len(clips) - len({clip.id for clip in clips}):
        raise ValueError(f"{file} has {repeated} clips under the names of others")
    reader = PickledFeatures(clips, features)
    _write(out, reader, {clip.id: clip.problems for clip in clips})
    if launched_as()[0] == 0:
        _write_captions(file, out, clips, reader)


def verify(location: str) -> None:
    """Read a whole store and compare it with the SHA-256 that was written; print what is damaged.

    Args:
        location: of a feature store, a folder or a URL; or the folder of a caption store.

    Raises:
        ValueError: there is no store, or it is damaged or empty.
    """
    if any((Path(location) / name).exists() for name in FILES):
        captions = CaptionStore(location)
        captions.verify()
        _refuse_empty(location, captions.num_captions)
        print(f"{location}: {number_of(captions.num_captions, 'caption')}, undamaged")
        return
    store = FeatureStore(location)
    with tqdm(desc="verifying", total=sum(store.index.sizes), unit="B", unit_scale=True) as bar:
        damaged = find_damaged_shards(store, bar.update)
    for shard in damaged:
        videos = ", ".join(shard.videos) or "unknown"
        print(visible(f"{shard.problem} (videos: {videos})"))
    shards = number_of(len(store.index.shards), "shard")
    if damaged:
        raise ValueError(f"{location}: {len(damaged)} of {shards} damaged; see the lines above")
    _refuse_empty(location, len(store))
    print(f"{location}: {number_of(len(store), 'video')} in {shards}, undamaged")


def _refuse_empty(location: str, count: int) -> None:
    if not count:
        raise ValueError(f"{location}: the store is empty; fill it by the command that makes it")


def _write_captions(
    file: Path, out: Path, clips: Sequence[PickledClip], reader: PickledFeatures
) -> None:
    for ending, texts in [("", lambda clip: [clip.text]), ("_training", lambda clip: clip.texts)]:
        table = io.StringIO()
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(["video", "start", "end", "text"])
        for clip in clips:
            # Rounding must not cost the last frame.
            end = f"{_seconds(clip.id, reader) + 0.001:.3f}"
            rows.writerows((clip.id, 0, end, text) for text in texts(clip))
        path = out / f"{file.stem}{ending}.csv"
        write_atomically(path, table.getvalue())
        print(f"{path}: {number_of(sum(len(texts(clip)) for clip in clips), 'caption')}")


def _write(out: Path, reader: Reader, known: Mapping[str, Sequence[str]]) -> None:
    """Write the videos of a reader; ``known`` are problems of features that it leaves out."""
    rank, world_size = launched_as()
    problems: dict[str, list[str]] = {}
    added = skipped = 0
    names = list(dict.fromkeys(reader.videos))
    with StoreWriter(out, reader.fields, name=f"pack{rank}") as writer:
        for name in tqdm(names[rank::world_size], desc="packing", unit="video", disable=rank > 0):
            if writer.done(name):
                skipped += 1
                continue
            features, found = _read(reader, name, [*known.get(name, ())])
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


def _read(reader: Reader, video: str, problems: list[str]) -> tuple[dict[str, Tensor], list[str]]:
    features = {}
    for field in reader.fields:
        try:
            rows = reader.read(video, field)
            if rows.numel() and not rows.abs().max() <= LARGEST:
                raise ValueError(f"{field} of {video}: not finite, or too large for float16")
            if len(rows):
                features[field] = rows
        except ValueError as error:
            problems.append(str(error))
    return features, problems


def _seconds(clip: str, reader: PickledFeatures) -> float:
    if frames := reader.rows(clip, "audio"):
        return spectrogram_seconds(frames)
    rows = [
        reader.rows(clip, name) / reader.fields[name].per_second
        for name in ("3d", "2d")
        if name in reader.fields
    ]
    return max(0.001, *rows)
